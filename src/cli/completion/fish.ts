import { type CommandGrammar, type Grammar, type OptionGrammar, shortFlags } from './grammar.ts';

export function fishScript({ program, subcommands }: Grammar): string {
  const names = subcommands.map(({ name }) => name).join(' ');
  const withValue = program.options.filter(({ value }) => value).flatMap(({ flags }) => flags);
  return `# fish completion for elect-run

# Prints what stands of the command that is to be run, without the current word. Fails before its place.
function __elect_run_command
    set -l words (commandline -opc)[2..]
    while set -q words[1]
        set -l word $words[1]
        set -e words[1]
        switch $word
            case --
                string join \\n -- $words
                return 0
            case ${withValue.join(' ')}
                set -e words[1]
            case '-*'
                # -qn is -q -n
                string match -qr '^-[${shortFlags([program], false)}]+[${shortFlags([program], true)}]$' -- $word
                and set -e words[1]
            case '*'
                string join \\n -- $word $words
                return 0
        end
    end
    return 1
end

# $argv[1]: first, options, command, or a subcommand
function __elect_run_at
    set -l words (commandline -opc)
    if contains -- "$words[2]" ${names}
        test $words[2] = $argv[1]
        return
    end
    switch $argv[1]
        case first
            test (count $words) -eq 1
        case options
            not __elect_run_command >/dev/null
        case command
            __elect_run_command >/dev/null
            or not string match -q -- '-*' (commandline -ct)
        case '*'
            return 1
    end
end

function __elect_run_complete_command
    complete -C (string join ' ' -- (__elect_run_command | string escape) (commandline -ct))
end

# $argv: the schemes
function __elect_run_store
    set -l word (string replace -r '^(--backend=|-[${shortFlags([program], false)}]*b)' '' -- (commandline -ct))
    if string match -q 'file:*' -- $word
        string replace -r '^' file: -- (__fish_complete_directories (string sub -s 6 -- $word))
    else
        string join \\n -- $argv
    end
end

complete -c elect-run -f
complete -c elect-run -n '__elect_run_at command' -a '(__elect_run_complete_command)'
${subcommands.map(({ name, summary }) => `complete -c elect-run -n '__elect_run_at first' -a ${name} -d ${quote(summary)}`).join('\n')}
${[program, ...subcommands].flatMap(lines).join('\n')}
`;
}

function lines(command: CommandGrammar): string[] {
  const at = `complete -c elect-run -n '__elect_run_at ${command.name || 'options'}'`;
  const words = command.words.length > 0 ? [`${at} -a '${command.words.join(' ')}'`] : [];
  return [...words, ...command.options.map((option) => `${at} ${optionWords(option)}`)];
}

function optionWords({ flags, description, value }: OptionGrammar): string {
  const names = flags.map((flag) => (flag.startsWith('--') ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`));
  return [...names, ...(value ? valueWords(value) : []), `-d ${quote(description)}`].join(' ');
}

function valueWords({ kind, words }: NonNullable<OptionGrammar['value']>): string[] {
  switch (kind) {
    case 'file':
      return ['-r -F'];
    case 'store':
      return [`-x -a '(__elect_run_store ${words.join(' ')})'`];
    case 'words':
      return words.length > 0 ? [`-x -a '${words.join(' ')}'`] : ['-x'];
  }
}

const quote = (text: string): string => `'${text.replace(/[\\']/g, '\\$&')}'`;
