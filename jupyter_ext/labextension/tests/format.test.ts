import { expect, test } from 'vitest';

import { costText, functionOf, kindOf, money, titleOf } from '../src/format';
import { Bill, Job, Pool } from '../src/types';

test('a cell is told by its notebook and number, and its function is its first line', () => {
  const cell = {
    name: 'digits-1m8b-9',
    kind: 'call',
    function: '[7] fit(x[1])',
    notebook: '/home/me/digits.ipynb',
    tags: { notebook: '/home/me/digits.ipynb', cell: '7' }
  } as unknown as Job;
  expect([titleOf(cell), functionOf(cell)]).toEqual(['digits.ipynb [7]', 'fit(x[1])']);
  const named: Job = { ...cell, tags: { ...cell.tags, cell_name: 'fit' } };
  expect(titleOf(named)).toBe('fit [7]');
  const detached: Job = { ...cell, kind: 'job', function: 'cell' };
  expect([titleOf(detached), functionOf(detached)]).toEqual(['digits-1m8b-9', 'cell']);
});

const jobWith = (bill: Bill | null) => ({ bill }) as Job;

test.each([
  [0, 'EUR', '0.00 EUR'],
  [0.42, 'EUR', '0.42 EUR'],
  [0.0423, '', '0.042'],
  [0.00042, '$', '0.0004 $'],
  [0.0000001, 'EUR', '<0.0001 EUR'],
  [12_345.678, 'EUR', '12,345.68 EUR']
])('an amount of %d %s reads as on the command line', (amount, currency, text) => {
  expect(money(amount, currency)).toBe(text);
});

test('a job costs more while it holds a worker, and nothing is said where there is no price', () => {
  const bill: Bill = { per_hour: 3600, currency: 'EUR', seconds: 10, since: 100 };
  expect(costText(jobWith(bill), 102)).toBe('12.00 EUR');
  expect(costText(jobWith({ ...bill, since: null }), 102)).toBe('10.00 EUR');
  expect(costText(jobWith({ ...bill, seconds: 0, since: null }), 102)).toBe('');
  expect(costText(jobWith(null), 102)).toBe('');
});

test('a pool is told by what each of its workers is, and nothing is said of what nobody asked for', () => {
  const asked = { cpus: 0, memory_bytes: 0, gpus: 0, gpu_type: '' };
  const pool = { instance_type: 'local', python_version: '3.11', ...asked } as Pool;
  expect(kindOf(pool)).toBe('Python 3.11');
  const large = { instance_type: 'big', cpus: 2, gpus: 1, gpu_type: 'A100' };
  expect(kindOf({ ...pool, ...large })).toBe('big · Python 3.11 · 2 CPUs · 1 GPU A100');
});
