import type { CommandGrammar, Grammar, OptionGrammar } from './grammar.ts';

/** Works as `_elect-run` in a folder of fpath, and when it is sourced after compinit. */
export function zshScript({ program, subcommands }: Grammar): string {
  const names = subcommands.map(({ name, summary }) => quote(`${name}:${summary}`));
  return `#compdef elect-run
# zsh completion for elect-run

_elect-run_store() {
  if compset -P 'file:'; then
    _files -/
  else
    compadd -S '' -- "$@"
  fi
}

_elect-run() {
  local context state state_descr line ret=1
  local -a subcommands
  typeset -A opt_args

  if ((CURRENT == 2)); then
    subcommands=(${names.join(' ')})
  else
    case $words[2] in
${subcommands.map(subcommandCase).join('\n')}
    esac
  fi

  _arguments -s -S -A '-*' : \\
${program.options.map((option) => `    ${optionSpec(option)} \\\n`).join('')}    '*:: :->command' && ret=0
  if [[ $state == command ]]; then
    if [[ $words[1] == -- ]]; then # _arguments leaves it there when no option stands before it
      shift words
      ((CURRENT--))
    fi
    (($#subcommands)) && _describe subcommand subcommands && ret=0
    _normal && ret=0
  fi
  return ret
}

if [[ $funcstack[1] == _elect-run ]]; then
  _elect-run "$@"
else
  compdef _elect-run elect-run
fi
`;
}

function subcommandCase({ name, options, words }: CommandGrammar): string {
  const specs = [...options.map(optionSpec), ...(words.length > 0 ? [quote(`1: :(${words.join(' ')})`)] : [])];
  return `      ${name})
        shift words
        ((CURRENT--))
        _arguments -s -S : \\
${specs.map((spec) => `          ${spec}`).join(' \\\n')}
        return
        ;;`;
}

function optionSpec({ flags, description, value, repeats, excludes }: OptionGrammar): string {
  const before = quote(repeats ? '*' : `(${excludes.join(' ')})`);
  const after = quote(`[${description.replace(/[\\[\]]/g, '\\$&')}]${value ? valueSpec(value) : ''}`);
  const forms = flags.map((flag) => (value ? `${flag}${flag.length === 2 ? '+' : '='}` : flag));
  return `${before}${forms.length > 1 ? `{${forms.join(',')}}` : forms[0]}${after}`;
}

function valueSpec({ name, kind, words }: NonNullable<OptionGrammar['value']>): string {
  const message = name.replaceAll(':', '\\:');
  const offered = words.join(' ');
  switch (kind) {
    case 'file':
      return `:${message}:_files`;
    case 'store':
      return `:${message}:_elect-run_store ${offered}`;
    case 'words':
      return `:${message}:${offered === '' ? ' ' : `(${offered})`}`;
  }
}

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
