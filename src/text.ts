/** Control characters would break lines of logs and terminals, and of the store's other readers. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
export const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;

/** Makes a text from elsewhere harmless to show. */
export const printable = (text: string): string => text.replace(new RegExp(CONTROL, 'g'), '?');

/** As it would be typed in a shell, on one line. */
export const asTyped = (words: string[]): string =>
  words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(' ');
