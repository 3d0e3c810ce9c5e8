import { type CommandGrammar, type Grammar, shortFlags } from './grammar.ts';

/** For bash 4 or later. The command is completed by the package bash-completion; without that by its name, its arguments as files. */
export function bashScript({ program, subcommands }: Grammar): string {
  const commands = [program, ...subcommands];
  const names = subcommands.map(({ name }) => name);
  return `# bash completion for elect-run

# $1: an option, $2: the subcommand or nothing. Sets kind and values; fails when the option takes no value.
_elect_run_value() {
  local option=$1
  # -qn is -q -n
  [[ $1 =~ ^-[${shortFlags(commands, false)}]*([${shortFlags(commands, true)}])$ ]] && option=-\${BASH_REMATCH[1]}
  case "$2 $option" in
${commands.flatMap(valueCases).join('\n')}
    *) return 1 ;;
  esac
}

_elect_run_offer() {
  mapfile -t COMPREPLY < <(compgen -P "$prefix" "$@" -- "$cur")
}

# $1: the index of the command's first word
_elect_run_command() {
  if declare -F _comp_command_offset >/dev/null; then
    _comp_command_offset "$1"
  elif declare -F _command_offset >/dev/null; then
    _command_offset "$1"
  elif ((COMP_CWORD > $1)) || [[ $cur == */* ]]; then
    compopt -o filenames
    _elect_run_offer -f
  else
    _elect_run_offer -c
  fi
}

_elect_run() {
  local IFS=$' \\t\\n' cur=\${COMP_WORDS[COMP_CWORD]} prefix='' kind='' values=''
  local subcommand='' option='' goes_on='' is_first=$((COMP_CWORD == 1)) i word
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ $word =~ ^[=:@]+$ ]]; then # readline splits words there
      [[ -n $option && $word == = ]] || goes_on=yes
      continue
    elif [[ -n $goes_on && $word != -* ]]; then
      goes_on=''
      continue
    fi
    goes_on=''
    if [[ -n $option ]]; then
      option=''
      continue
    fi
    case $word in
      --)
        _elect_run_command $((i + 1))
        return
        ;;
      -*) _elect_run_value "$word" "$subcommand" && option=$word ;;
      *)
        if [[ $i == 1 && ' ${names.join(' ')} ' == *" $word "* ]]; then
          subcommand=$word
        elif [[ -z $subcommand ]]; then
          _elect_run_command "$i"
          return
        fi
        ;;
    esac
  done

  if [[ -n $goes_on || $cur == :* ]]; then
    if [[ \${COMP_WORDS[COMP_CWORD - 1]} == : && \${COMP_WORDS[COMP_CWORD - 2]} == file ]]; then
      compopt -o filenames
      _elect_run_offer -d
    fi
    return
  fi
  if [[ $cur == = ]]; then
    cur=''
  elif [[ -z $option && $cur == --*=* ]]; then
    option=\${cur%%=*} prefix=\${cur%%=*}= cur=\${cur#*=}
  fi
  if [[ -n $option ]]; then
    _elect_run_value "$option" "$subcommand"
    case $kind in
      file)
        compopt -o filenames
        _elect_run_offer -f
        ;;
      store)
        compopt -o nospace
        if [[ $cur == file:* ]]; then
          prefix+=file: cur=\${cur#file:}
          _elect_run_offer -d -S /
        else
          _elect_run_offer -W "$values"
        fi
        ;;
      words) _elect_run_offer -W "$values" ;;
    esac
    return
  fi
  case $subcommand in
${subcommands.map((one) => `    ${one.name}) _elect_run_offer -W '${[...one.words, ...flags(one)].join(' ')}' ;;`).join('\n')}
    *)
      if [[ -z $cur || $cur == -* ]]; then
        _elect_run_offer -W '${[...flags(program), '--'].join(' ')}'
      else
        _elect_run_command "$COMP_CWORD"
      fi
      ;;
  esac
  if ((is_first)); then
    mapfile -t -O "\${#COMPREPLY[@]}" COMPREPLY < <(compgen -W '${names.join(' ')}' -- "$cur")
  fi
}

complete -F _elect_run elect-run
`;
}

const flags = (command: CommandGrammar): string[] => command.options.flatMap((option) => option.flags);

function valueCases({ name, options }: CommandGrammar): string[] {
  return options.flatMap(({ flags, value }) => {
    if (!value) return [];
    const patterns = flags.map((flag) => `'${name} ${flag}'`).join(' | ');
    return `    ${patterns}) kind=${value.kind} values='${value.words.join(' ')}' ;;`;
  });
}
