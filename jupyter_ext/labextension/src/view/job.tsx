import { copyIcon, linkIcon, runIcon, stopIcon, terminalIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import {
  barText,
  causeText,
  costText,
  elapsedText,
  functionOf,
  moment,
  money,
  size,
  titleOf
} from '../format';
import { JobModel } from '../model/job';
import { Environment, JobDetail } from '../types';
import { isActive, JobActions, whyNoAttach, whyNoShell } from './actions';
import { AttemptsView } from './attempts';
import { FailureView } from './failure';
import { useActions, useModel, useNow } from './hooks';
import { LogView } from './log';
import { MetricsView } from './metrics';
import { IconButton, Message, ProblemMessage, ProgressBar, Stale, StateSign } from './parts';
import { Tabs } from './tabs';

const TOLD_TAGS = new Set(['notebook', 'cell', 'cell_name']); // they are told under names of their own

interface PageProps {
  model: JobModel;
  actions: JobActions;
}

/** All of one job. */
export function JobPage({ model, actions }: PageProps): React.JSX.Element {
  useModel(model);
  const { detail, problem } = model;
  if (detail === null) {
    return problem ? <ProblemMessage problem={problem} /> : <Message title={`Loading ${model.id.name}…`} />;
  }
  const pages = [
    { name: 'Log', view: <LogView log={model.log} onDownload={() => actions.download(model.id)} /> },
    { name: 'Metrics', view: <MetricsView metrics={model.metrics} /> },
    { name: 'Timeline', view: <AttemptsView job={detail.job} attempts={detail.attempts} /> },
    ...(detail.failure || detail.traceback
      ? [{ name: 'Traceback', view: <FailureView failure={detail.failure} text={detail.traceback} /> }]
      : []),
    { name: 'Code', view: <Code code={detail.code} /> },
    { name: 'Details', view: <Details detail={detail} /> }
  ];
  return (
    <div className="jp-RemoteExec-page">
      {!model.isLive && <Stale problem={problem} />}
      <Header detail={detail} actions={actions} />
      <Tabs label={`Job ${titleOf(detail.job)}`} pages={pages} />
    </div>
  );
}

function Header({ detail, actions }: { detail: JobDetail; actions: JobActions }): React.JSX.Element {
  const { job } = detail;
  const now = useNow(job.state === 'running');
  useActions(actions);
  const noShell = whyNoShell(job, actions);
  const outcome = job.state === 'failed' ? job.summary || causeText(job.cause, job.state) : '';
  return (
    <div className="jp-RemoteExec-header">
      <h2 title={job.name}>{titleOf(job)}</h2>
      <div className="jp-RemoteExec-actions" role="toolbar" aria-label="Job">
        <IconButton
          icon={stopIcon}
          label="Cancel"
          disabled={!isActive(job)}
          onClick={() => actions.cancel(job)}
        />
        <IconButton
          icon={runIcon}
          label="Run again"
          why={detail.can_rerun ? '' : detail.why_not_rerun}
          onClick={() => actions.rerun(job)}
        />
        <IconButton icon={copyIcon} label="Copy its name" onClick={() => actions.copyId(job)} />
        <IconButton
          icon={linkIcon}
          label="Attach in the notebook"
          why={whyNoAttach(job, actions)}
          onClick={() => actions.attach(job)}
        />
        <IconButton
          icon={terminalIcon}
          label={noShell ? 'Open a shell' : 'Open a shell where it runs'}
          why={noShell}
          onClick={() => actions.shell(job)}
        />
      </div>
      <p>
        <StateSign state={job.state} label />
        {[
          ...new Set([
            functionOf(job),
            job.instance_type,
            job.host,
            elapsedText(job, now),
            costText(job, now)
          ])
        ]
          .filter(Boolean)
          .map(part => (
            <span key={part}>{part}</span>
          ))}
      </p>
      {detail.why && job.state === 'queued' && <p>Waits: {detail.why}</p>}
      {outcome && <p className="jp-RemoteExec-error">{outcome}</p>}
      {job.state === 'running' &&
        job.progress.map((bar, number) => (
          <div key={number} className="jp-RemoteExec-bar">
            <span>{barText(bar)}</span>
            <ProgressBar bar={bar} />
          </div>
        ))}
    </div>
  );
}

function Code({ code }: { code: string }): React.JSX.Element {
  return code ? (
    <pre className="jp-RemoteExec-code" tabIndex={0}>
      {code}
    </pre>
  ) : (
    <Message title="Its code is not recorded." />
  );
}

const BUILT: Record<string, string> = {
  interpreter: 'an interpreter that was there, as it is',
  uv: 'built by uv from the requirements',
  project: 'built by uv from the project’s lock file',
  conda: 'built by conda',
  conda_named: 'a conda environment that was there'
};

function environmentText({ kind, python }: Environment): string {
  return [python && `Python ${python}`, BUILT[kind] ?? kind].filter(Boolean).join(', ');
}

function Details({ detail }: { detail: JobDetail }): React.JSX.Element {
  const { job, environment, result } = detail;
  const now = Date.now() / 1000;
  const facts: [string, string][] = [
    ['Cause', causeText(job.cause, job.state)],
    ['Created', moment(job.created_at, now)],
    ['Started', moment(job.started_at, now)],
    ['Ended', moment(job.ended_at, now)],
    ['Price', job.bill ? `${money(job.bill.per_hour, job.bill.currency)} an hour` : ''],
    ['Notebook', job.notebook],
    ['Cell', job.tags['cell'] ? `[${job.tags['cell']}]` : ''],
    ['Calls', job.count > 1 ? `${job.count}, ${job.failed} failed` : ''],
    ['Environment', environmentText(environment)],
    ['Requirements', environment.requirements.join('\n')],
    [
      'Tags',
      Object.entries(job.tags)
        .filter(([key]) => !TOLD_TAGS.has(key))
        .map(([key, value]) => `${key}=${value}`)
        .join('\n')
    ],
    [
      'Result',
      result
        ? [result.type.replace(/^builtins\./, ''), result.size_bytes ? size(result.size_bytes) : '']
            .filter(Boolean)
            .join(', ')
        : ''
    ],
    ['Value', result?.text ?? ''],
    ...detail.gpus.map((gpu): [string, string] => [
      `GPU ${gpu.uuid}`,
      `${size(gpu.memory_used_bytes)} in use, at most ${size(gpu.peak_memory_bytes)}, ${gpu.percent} % busy`
    ])
  ];
  return (
    <dl className="jp-RemoteExec-facts">
      {facts
        .filter(([, text]) => text)
        .map(([name, text]) => (
          <React.Fragment key={name}>
            <dt>{name}</dt>
            <dd>{text}</dd>
          </React.Fragment>
        ))}
    </dl>
  );
}
