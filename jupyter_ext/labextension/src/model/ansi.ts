/** Text of a terminal, cut into spans of one look each. What is text stays text: nothing here makes HTML. */

/** How a span looks. Colours: a number of the sixteen, or "r,g,b". */
export interface Style {
  readonly fg?: string;
  readonly bg?: string;
  readonly bold?: boolean;
  readonly dim?: boolean;
  readonly italic?: boolean;
  readonly underline?: boolean;
  readonly inverse?: boolean;
}

export interface Span {
  readonly text: string;
  readonly style: Style;
}

export const PLAIN: Style = {};

// CSI sequences, OSC sequences (titles, links), and the other escapes

const ESCAPE =
  /\x1b(?:\[([0-9:;<=>?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()#][0-9A-Za-z]|[@-Z\\^_=>])/g;
// an escape sequence that goes on in the next piece

const UNFINISHED = /\x1b(?:\[[0-9:;<=>? -/]*|\][^\x07\x1b]*)?$/;

/** One piece of text, or the style from here on. */
export type Part = string | Style;

/** Return a text's pieces and changes of style, and what of its end has to wait for more. */
export function parse(text: string, style: Style): { parts: Part[]; rest: string } {
  const rest = UNFINISHED.exec(text)?.[0] ?? '';
  const whole = rest ? text.slice(0, -rest.length) : text;
  const parts: Part[] = [];
  let at = 0;
  let now = style;
  for (const match of whole.matchAll(ESCAPE)) {
    if (match.index > at) {
      parts.push(whole.slice(at, match.index));
    }
    at = match.index + match[0].length;
    if (match[2] === 'm') {
      now = changed(now, match[1] ?? '');
      parts.push(now);
    }
  }
  if (at < whole.length) {
    parts.push(whole.slice(at));
  }
  return { parts, rest: rest.length < 256 ? rest : '' };
}

/** Return a style after the numbers of an SGR sequence. */
export function changed(style: Style, codes: string): Style {
  const numbers = codes.split(/[;:]/).map(Number);
  let now: Record<string, string | boolean | undefined> = { ...style };
  for (let at = 0; at < numbers.length; at++) {
    const code = numbers[at] ?? 0;
    if (code === 0) {
      now = {};
    } else if (code === 38 || code === 48) {
      const [colour, used] = extended(numbers.slice(at + 1));
      now[code === 38 ? 'fg' : 'bg'] = colour;
      at += used;
    } else {
      Object.assign(now, simple(code));
    }
  }
  return now;
}

function simple(code: number): Style {
  switch (code) {
    case 1:
      return { bold: true };
    case 2:
      return { dim: true };
    case 3:
      return { italic: true };
    case 4:
      return { underline: true };
    case 7:
      return { inverse: true };
    case 22:
      return { bold: undefined, dim: undefined };
    case 23:
      return { italic: undefined };
    case 24:
      return { underline: undefined };
    case 27:
      return { inverse: undefined };
    case 39:
      return { fg: undefined };
    case 49:
      return { bg: undefined };
  }
  const digit = code % 10;
  if (digit < 8) {
    switch (Math.floor(code / 10)) {
      case 3:
        return { fg: String(digit) };
      case 4:
        return { bg: String(digit) };
      case 9:
        return { fg: String(8 + digit) };
      case 10:
        return { bg: String(8 + digit) };
    }
  }
  return {};
}

/** Return a colour of the 256 or of all, and how many numbers say it. */
function extended(numbers: number[]): [string | undefined, number] {
  const [kind, first = 0, second = 0, third = 0] = numbers;
  if (kind === 2) {
    return [[first, second, third].map(byte).join(','), 4];
  }
  if (kind !== 5) {
    return [undefined, 0];
  }
  const number = byte(first);
  if (number < 16) {
    return [String(number), 2];
  }
  if (number >= 232) {
    const grey = 8 + 10 * (number - 232);
    return [`${grey},${grey},${grey}`, 2];
  }
  const cube = number - 16;
  const levels = [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6];
  return [levels.map(level => (level ? 55 + 40 * level : 0)).join(','), 2];
}

function byte(number: number): number {
  return Math.min(255, Math.max(0, Math.trunc(number) || 0));
}
