import { expect, test } from 'vitest';

import { LogModel, MOST_COLUMNS, MOST_LINES, piecesOf } from '../src/model/log';
import { LogRecord } from '../src/types';

function logOf(...records: [LogRecord['stream'], string][]): LogModel {
  const log = new LogModel();
  for (const [stream, text] of records) {
    log.add({ records: [{ time: 0, stream, text }], next: 'x', end: false });
  }
  return log;
}

const texts = (log: LogModel) => log.lines.map(line => line.text);

test('lines are put together from pieces', () => {
  expect(texts(logOf(['out', 'on'], ['out', 'e\ntwo\n\nfo'], ['out', 'ur']))).toEqual([
    'one',
    'two',
    '',
    'four'
  ]);
});

test('a progress bar writes over its own line while others print', () => {
  const log = logOf(
    ['err', '\r10%'],
    ['out', 'hello\n'],
    ['err', '\r20%'],
    ['err', '\r100%\n'],
    ['out', 'bye\n']
  );
  expect(texts(log)).toEqual(['100%', 'hello', 'bye']);
  expect(texts(logOf(['out', 'dos\r\nlines\r\n']))).toEqual(['dos', 'lines']);
});

test('each record of logging is a line', () => {
  expect(texts(logOf(['log', 'one'], ['log', 'two\n'], ['gap', '3 MB left out']))).toEqual([
    'one',
    'two',
    '3 MB left out'
  ]);
});

test('colours are kept over lines and pieces, also where an escape is cut', () => {
  const log = logOf(
    ['out', 'a\x1b[3'],
    ['out', '1mred\nstill\x1b[1;38;5;196mx\x1b[48;2;1;2;300my\x1b[0mz\n']
  );
  expect(texts(log)).toEqual(['ared', 'stillxyz']);
  expect(log.lines.map(line => line.spans.map(({ style }) => style))).toEqual([
    [{}, { fg: '1' }],
    [{ fg: '1' }, { fg: '255,0,0', bold: true }, { fg: '255,0,0', bold: true, bg: '1,2,255' }, {}]
  ]);
});

test('what is no text goes: cursor moves, titles, links, bells', () => {
  const log = logOf([
    'out',
    '\x1b[2K\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b\x1b]8;;\x1b\\\x07\x1b[A<script>\n'
  ]);
  expect(texts(log)).toEqual(['ab<script>']);
});

test('a log without an end does not fill the memory', () => {
  const log = logOf(
    ['out', 'first\n'],
    ['out', 'x\n'.repeat(MOST_LINES)],
    ['out', 'y'.repeat(2 * MOST_COLUMNS)]
  );
  expect([log.lines.length, log.dropped]).toEqual([MOST_LINES, 2]);
  expect(log.lines.at(-1)?.text).toHaveLength(MOST_COLUMNS);
  log.add({ records: [{ time: 0, stream: 'out', text: '\rz\n' }], next: '', end: true });
  expect([log.lines.at(-1)?.text, log.ended]).toEqual(['z', true]);
});

test('it is searched whatever the case', () => {
  const log = logOf(['out', 'Loss 1\nnothing\n']);
  expect(log.find('loss')).toEqual([0]);
  log.add({ records: [{ time: 0, stream: 'out', text: 'LOSS 2\n' }], next: '', end: false });
  expect(log.find('loss')).toEqual([0, 2]);
  expect(log.find('')).toEqual([]);
});

test('what is searched for is cut out of its line, whatever the colours and the case', () => {
  const [line] = logOf(['out', 'a \x1b[31mlo\x1b[0mss, a LossLoss\n']).lines;
  const cut = (wanted: string) =>
    line && piecesOf(line, wanted).map(({ text, isMatch }) => (isMatch ? `<${text}>` : text));
  expect(cut('loss')).toEqual(['a ', '<lo>', '<ss>', ', a ', '<Loss>', '<Loss>']);
  expect(cut('')).toEqual(['a ', 'lo', 'ss, a LossLoss']);
  expect(cut('gain')).toEqual(cut(''));
});
