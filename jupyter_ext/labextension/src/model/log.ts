import { LogPiece, LogRecord, Problem } from '../types';
import { parse, PLAIN, Span, Style } from './ansi';
import { Model } from './signalling';

/** How many lines are kept at most; the oldest go first. */
export const MOST_LINES = 50_000;
/** How long a line may be; the rest of it is in the download. */
export const MOST_COLUMNS = 10_000;

/** One line of output. Replaced as a whole when it changes. */
export interface Line {
  readonly stream: LogRecord['stream'];
  readonly time: number;
  readonly spans: readonly Span[];
  readonly text: string;
}

/** Part of a line; whether it is what is searched for. */
export interface Piece extends Span {
  readonly isMatch: boolean;
}

/** Return a line's spans, cut where what is searched for begins and ends, whatever the case. */
export function piecesOf(line: Line, wanted: string): Piece[] {
  const [text, lower] = [line.text.toLowerCase(), wanted.toLowerCase()];
  const cuts: number[] = []; // beginnings and ends of matches, in turn
  for (let at = lower ? text.indexOf(lower) : -1; at >= 0; at = text.indexOf(lower, at + lower.length)) {
    cuts.push(at, at + lower.length);
  }
  const pieces: Piece[] = [];
  let [start, passed] = [0, 0];
  for (const { text: whole, style } of line.spans) {
    const end = start + whole.length;
    for (let from = start; from < end;) {
      while ((cuts[passed] ?? Infinity) <= from) {
        passed += 1;
      }
      const to = Math.min(end, cuts[passed] ?? end);
      pieces.push({ text: whole.slice(from - start, to - start), style, isMatch: passed % 2 === 1 });
      from = to;
    }
    start = end;
  }
  return pieces;
}

interface Writer {
  line: number; // number of the line that it writes at, counted from the log's beginning; -1: it begins one
  returns: boolean; // a carriage return came: what is written next is in the line's place
  style: Style;
  rest: string; // of an escape sequence
}

/** A job's output as lines: a carriage return writes over its line, each stream goes on in its own line. */
export class LogModel extends Model {
  readonly lines: Line[] = [];

  /** How many lines were dropped at the beginning. */
  dropped = 0;

  /** The offset to go on from. */
  next = '';

  /** Whether all of it is here. */
  ended = false;

  /** Whether any answer has come. */
  begun = false;

  problem: Problem | null = null;

  /** Take in what comes next. */
  add(piece: LogPiece): void {
    for (const record of piece.records) {
      this.write(record);
    }
    this.next = piece.next;
    this.ended = piece.end;
    this.begun = true;
    this.sought = null;
    this.problem = null;
    const excess = this.lines.length - MOST_LINES;
    if (excess > 0) {
      this.lines.splice(0, excess);
      this.dropped += excess;
    }
    this.tell();
  }

  fail(problem: Problem): void {
    this.problem = problem;
    this.tell();
  }

  /** Return the indices of the lines that have a text in them, whatever the case. */
  find(wanted: string): readonly number[] {
    if (wanted !== this.sought) {
      const lower = wanted.toLowerCase();
      const matches = (line: Line) => line.text.toLowerCase().includes(lower);
      this.found = lower ? this.lines.flatMap((line, index) => (matches(line) ? index : [])) : [];
      this.sought = wanted;
    }
    return this.found;
  }

  private write(record: LogRecord): void {
    if (record.stream === 'gap') {
      this.lines.push({
        stream: 'gap',
        time: record.time,
        text: record.text,
        spans: [{ text: record.text, style: PLAIN }]
      });
      return;
    }
    let writer = this.writers.get(record.stream);
    if (writer === undefined) {
      writer = { line: -1, returns: false, style: PLAIN, rest: '' };
      this.writers.set(record.stream, writer);
    }
    const { parts, rest } = parse(writer.rest + record.text, writer.style);
    writer.rest = rest;
    for (const part of parts) {
      if (typeof part === 'string') {
        this.print(writer, record, part);
      } else {
        writer.style = part;
      }
    }
    if (record.stream === 'log') {
      writer.line = -1; // each is a line of its own
    }
  }

  private print(writer: Writer, record: LogRecord, text: string): void {
    for (const [token] of text.matchAll(/\r|\n|[^\r\n]+/g)) {
      if (token === '\n') {
        if (writer.line < 0) {
          this.open(writer, record);
        }
        writer.line = -1;
        writer.returns = false;
      } else if (token === '\r') {
        writer.returns = true;
      } else {
        this.put(writer, record, token);
      }
    }
  }

  private open(writer: Writer, record: LogRecord): void {
    writer.line = this.dropped + this.lines.length;
    this.lines.push({ stream: record.stream, time: record.time, spans: [], text: '' });
  }

  private put(writer: Writer, record: LogRecord, text: string): void {
    if (writer.line < this.dropped) {
      this.open(writer, record);
    }
    const index = writer.line - this.dropped;
    const before = writer.returns ? undefined : this.lines[index];
    writer.returns = false;
    const room = MOST_COLUMNS - (before?.text.length ?? 0);

    const printed = text.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, '').slice(0, Math.max(0, room));
    this.lines[index] = {
      stream: record.stream,
      time: record.time,
      spans: [...(before?.spans ?? []), { text: printed, style: writer.style }],
      text: (before?.text ?? '') + printed
    };
  }

  private sought: string | null = ''; // what `found` has; null: lines have changed since
  private found: number[] = [];
  private writers = new Map<LogRecord['stream'], Writer>();
}
