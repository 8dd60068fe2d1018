import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import { Server } from './socket';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

function looking() {
  const server = new Server();
  const heard: unknown[] = [];
  const look = server.feed.look('logs', () => ({ host: 'local', name: 'a', from: String(heard.length) }), {
    snapshot: value => heard.push(['snapshot', value]),
    changes: value => heard.push(['changes', value]),
    problem: problem => heard.push(['problem', problem.message])
  });
  return { server, heard, look };
}

test('a look is said once the socket is open, and left again', () => {
  const { server, look } = looking();
  expect(server.socket.said).toEqual([]);
  server.socket.accept();
  const other = server.feed.look('hosts', () => ({}), {
    snapshot: () => undefined,
    problem: () => undefined
  });
  look.dispose();
  expect(server.socket.said).toEqual([
    { type: 'look', id: 1, at: 'logs', host: 'local', name: 'a', from: '0' },
    { type: 'look', id: 2, at: 'hosts' },
    { type: 'leave', id: 1 }
  ]);
  other.dispose();
  expect(server.socket.isClosed).toBe(true);
});

test('a frame that is missing has the look said again, under a new number', () => {
  const { server, heard } = looking();
  server.socket.accept();
  server.socket.tell('snapshot', 1, 'one');
  server.socket.tell('changes', 2, 'two');
  server.socket.tell('changes', 4, 'four');
  expect(heard).toEqual([
    ['snapshot', 'one'],
    ['changes', 'two']
  ]);
  expect(server.socket.said.slice(1)).toEqual([
    { type: 'leave', id: 1 },
    { type: 'look', id: 2, at: 'logs', host: 'local', name: 'a', from: '2' }
  ]);
  server.socket.tell('changes', 5, 'of the former look', 1);
  server.socket.tell('snapshot', 1, 'again');
  expect(heard.at(-1)).toEqual(['snapshot', 'again']);
});

test('after a disconnection the reason is told, and all looks are said from where they are', async () => {
  const { server, heard } = looking();
  server.socket.accept();
  server.socket.tell('snapshot', 1, 'one');
  server.socket.break();
  expect(server.feed.connection).toBe('closed');
  await vi.advanceTimersByTimeAsync(1000);
  expect(heard.at(-1)).toEqual(['problem', 'down']);
  expect(server.sockets).toHaveLength(2);
  server.socket.accept();
  expect(server.socket.said).toEqual([
    { type: 'look', id: 1, at: 'logs', host: 'local', name: 'a', from: '2' }
  ]);
});

test('it waits longer each time that there is no connection', async () => {
  const { server } = looking();
  for (let count = 0; count < 12; count++) {
    server.socket.break();
    await vi.advanceTimersByTimeAsync(40_000);
  }
  expect(server.sockets).toHaveLength(13);
  server.socket.break();
  await vi.advanceTimersByTimeAsync(20_000);
  expect(server.sockets).toHaveLength(13);
});
