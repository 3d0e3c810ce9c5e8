/** What one check has found, and the way out of what is not well. */
export type Finding =
  | { check: string; level: 'ok'; found: string }
  | { check: string; level: 'warning'; found: string; remedy: string }
  /** `code`: with what elect-run would end for its sake. */
  | { check: string; level: 'problem'; found: string; remedy: string; code: number };

export const ok = (check: string, found: string): Finding => ({ check, level: 'ok', found });

export const warning = (check: string, found: string, remedy: string): Finding => ({
  check,
  level: 'warning',
  found,
  remedy,
});

export const problem = (check: string, code: number, found: string, remedy: string): Finding => ({
  check,
  level: 'problem',
  code,
  found,
  remedy,
});
