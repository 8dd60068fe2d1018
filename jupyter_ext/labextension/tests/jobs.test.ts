import { expect, test, vi } from 'vitest';

import { JobsModel } from '../src/model/jobs';
import { Job, State, Window } from '../src/types';
import { Server } from './socket';

function job(name: string, state: State = 'running'): Job {
  return {
    key: `local/${name}`,
    host: 'local',
    name,
    kind: 'job',
    function: 'train',
    state,
    cause: 'none',
    summary: '',
    created_at: 0,
    started_at: 0,
    ended_at: null,
    instance_type: '',
    attempts: 1,
    count: 1,
    failed: 0,
    tags: {},
    notebook: '',
    progress: [],
    bill: null
  };
}

function window(first: number, total: number): Window {
  const counts = { queued: 0, running: total, succeeded: 0, failed: 0, cancelled: 0 };
  return { first, total, groups: [], counts, agent: 'running', hosts: ['local'], more: false };
}

function watching() {
  const server = new Server();
  const model = new JobsModel(server.feed);
  model.watch();
  server.socket.accept();
  return { server, model };
}

test('changes are put into the window: some jobs change, some come and go', () => {
  const { server, model } = watching();
  server.socket.tell('snapshot', 1, { ...window(0, 2), jobs: [job('a'), job('b')] });
  model.select(model.at(1) ?? null);
  const a = model.at(0);
  server.socket.tell('changes', 2, { ...window(0, 2), order: null, changed: [job('b', 'failed')] });
  expect([model.at(0) === a, model.at(1)?.state]).toEqual([true, 'failed']);
  server.socket.tell('changes', 3, {
    ...window(0, 3),
    order: ['local/c', 'local/a', 'local/b'],
    changed: [job('c')]
  });
  expect([0, 1, 2].map(index => model.at(index)?.name)).toEqual(['c', 'a', 'b']);
  expect([model.selected?.name, model.selectedIndex]).toEqual(['b', 2]); // the selection goes with its job
});

test('the window follows what is seen, and nothing is asked for twice or in passing', () => {
  vi.useFakeTimers();
  const { server, model } = watching();
  const rows = Array.from({ length: 200 }, (_, index) => job(String(index)));
  server.socket.tell('snapshot', 1, { ...window(0, 10_000), jobs: rows });
  model.see(0, 30);
  model.see(100, 130);
  expect(server.socket.said).toHaveLength(1);
  model.see(2000, 2030);
  model.see(5000, 5030);
  model.see(5001, 5031);
  vi.runAllTimers();
  vi.useRealTimers();
  expect(server.socket.said.slice(1)).toMatchObject([
    { type: 'look', first: 4915, count: 200 },
    { type: 'leave', id: 1 }
  ]);
  model.selectAt(5000);
  expect([model.selected, model.selectedIndex]).toEqual([null, 5000]);
  expect(model.at(0)?.name).toBe('0'); // shown until the other ones are there
  server.socket.tell('snapshot', 1, { ...window(4915, 10_000), jobs: rows.map(one => job(`5${one.name}`)) });
  expect([model.at(0), model.at(4915)?.name]).toEqual([undefined, '50']);
  expect([model.selected?.name, model.selectedIndex]).toEqual(['585', 5000]);
});

test('another filter begins at the top', () => {
  const { server, model } = watching();
  model.see(0, 30);
  model.filter = { ...model.filter, search: 'train', states: ['failed'] };
  expect(server.socket.said.at(-2)).toMatchObject({
    type: 'look',
    search: 'train',
    states: ['failed'],
    first: 0
  });
  expect(model.isFiltered).toBe(true);
});

test('who does not watch is not told', () => {
  const { server, model } = watching();
  model.rest();
  expect(server.socket.isClosed).toBe(true);
  expect(model.isLive).toBe(false);
});
