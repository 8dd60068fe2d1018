import { closeIcon, historyIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { duration, kindOf, moment, money, size, ticking } from '../format';
import { HostsModel } from '../model/hosts';
import { Gpu, Host, Pool, Worker } from '../types';
import { useModel } from './hooks';
import { IconButton, Message, Meter, ProblemMessage, Stale } from './parts';

export interface HostActions {
  readonly keep: (host: string, pool: string) => void;
  readonly release: (host: string, pool: string) => void;
}

/** Hosts: how busy they are, and their warm workers. */
export function HostsView({
  model,
  actions
}: {
  model: HostsModel;
  actions: HostActions;
}): React.JSX.Element {
  useModel(model);
  if (model.hosts === null) {
    return model.problem ? <ProblemMessage problem={model.problem} /> : <Message title="Loading hosts…" />;
  }
  return (
    <div className="jp-RemoteExec-hosts">
      {!model.isLive && <Stale problem={model.problem} />}
      {model.hosts.map(host => (
        <HostView key={host.name} host={host} actions={actions} />
      ))}
    </div>
  );
}

function HostView({ host, actions }: { host: Host; actions: HostActions }): React.JSX.Element {
  const now = Date.now() / 1000;
  const { cpu_percent: cpu, memory_used_bytes: used, memory_total_bytes: memory } = host;
  const heard = host.state !== 'connected' && host.reached_at !== null;
  const pools = host.pools.filter(isInUse);
  return (
    <section aria-label={`Host ${host.name}`} data-host={host.name}>
      <h3>
        {host.name === 'local' ? 'This machine' : host.name}
        <span className="jp-RemoteExec-quiet">
          {host.state}
          {heard ? `, heard ${moment(host.reached_at, now)}` : ''}
        </span>
      </h3>
      {cpu !== null && host.cpus > 0 && (
        <Meter
          label="CPU"
          text={`${Math.round(cpu)} of ${100 * host.cpus} %`}
          share={cpu / (100 * host.cpus)}
        />
      )}
      {used !== null && memory !== null && (
        <Meter label="Memory" text={`${size(used)} of ${size(memory)}`} share={used / memory} />
      )}
      {host.gpus.map((gpu, number) => (
        <GpuView key={gpu.uuid} gpu={gpu} number={number} />
      ))}
      {host.pid > 0 && pools.length === 0 && (
        <p className="jp-RemoteExec-quiet">No pools: nothing is warm.</p>
      )}
      {pools.map(pool => (
        <PoolView key={pool.key} pool={pool} host={host.name} actions={actions} />
      ))}
    </section>
  );
}

/** Whether a pool is more than what is left of one: without workers it is gone within a minute. */
function isInUse(pool: Pool): boolean {
  return pool.workers.length > 0 || pool.queued > 0;
}

function GpuView({ gpu, number }: { gpu: Gpu; number: number }): React.JSX.Element {
  const memory = `${size(gpu.memory_used_bytes)} of ${size(gpu.memory_total_bytes)}`;
  return (
    <div title={[gpu.name, gpu.uuid, ...gpu.held_by].join('\n')}>
      <Meter label={`GPU ${number}`} text={`${gpu.percent} %`} share={gpu.percent / 100} />
      <Meter
        label={`GPU ${number} memory`}
        text={memory}
        share={gpu.memory_total_bytes ? gpu.memory_used_bytes / gpu.memory_total_bytes : 0}
      />
    </div>
  );
}

function PoolView({
  pool,
  host,
  actions
}: {
  pool: Pool;
  host: string;
  actions: HostActions;
}): React.JSX.Element {
  const inUse = pool.workers.filter(worker => worker.state === 'InUse').length;
  const waiting = pool.queued ? `, ${pool.queued} queued` : '';
  const users = pool.asked_by.join(', ') || 'Warm workers';
  return (
    <div className="jp-RemoteExec-pool" role="group" aria-label={`Pool of ${users}`} data-pool={pool.key}>
      <div className="jp-RemoteExec-poolHead">
        <span
          className="jp-RemoteExec-name"
          title={[users, pool.python, pool.note].filter(Boolean).join('\n')}
        >
          {users}
        </span>
        <IconButton icon={historyIcon} label="Keep warm" onClick={() => actions.keep(host, pool.key)} />
        <IconButton
          icon={closeIcon}
          label="Release idle workers"
          disabled={inUse === pool.workers.length}
          onClick={() => actions.release(host, pool.key)}
        />
      </div>
      <div className="jp-RemoteExec-quiet">{kindOf(pool)}</div>
      <div className="jp-RemoteExec-quiet">
        {inUse} of {pool.workers.length} in use{waiting}
        {pool.keep_alive_seconds > 0 && `, kept for ${duration(pool.keep_alive_seconds)}`}
      </div>
      <ul>
        {pool.workers.map(worker => (
          <WorkerView key={worker.id} worker={worker} />
        ))}
      </ul>
    </div>
  );
}

function WorkerView({ worker }: { worker: Worker }): React.JSX.Element {
  const left = worker.keep_alive_left === null ? '' : `${ticking(worker.keep_alive_left)} left`;
  const facts = [
    worker.state === 'InUse' ? 'in use' : worker.state === 'Available' ? 'warm' : worker.state.toLowerCase(),
    left,
    worker.cpu_percent === null ? '' : `${Math.round(worker.cpu_percent)} % CPU`,
    worker.memory_bytes === null ? '' : size(worker.memory_bytes),
    worker.price === null ? '' : `${money(worker.price.per_hour, worker.price.currency)} an hour`
  ];
  return (
    <li data-worker={worker.state}>
      {worker.pid} · {facts.filter(Boolean).join(' · ')}
    </li>
  );
}
