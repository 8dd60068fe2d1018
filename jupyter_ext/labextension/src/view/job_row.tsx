import * as React from 'react';

import { barText, causeText, costText, elapsedText, functionOf, titleOf } from '../format';
import { Job } from '../types';
import { isActive } from './actions';
import { ProgressBar, StateSign } from './parts';

interface RowProps {
  job: Job | undefined;
  id: string;
  index: number;
  total: number;
  top: number;
  now: number; // only where it runs
  isSelected: boolean;
  onSelect: (job: Job) => void;
  onOpen: (job: Job) => void;
}

/** One job in the list. */
export const JobRow = React.memo(function JobRow(props: RowProps): React.JSX.Element {
  const { job, id, index, total, top, now, isSelected } = props;
  const common = {
    id,
    role: 'option',
    className: 'jp-RemoteExec-job',
    style: { transform: `translateY(${top}px)` },
    'aria-selected': isSelected,
    'aria-posinset': index + 1,
    'aria-setsize': total
  };
  if (job === undefined) {
    return <div {...common} aria-label="loading" data-loading />;
  }
  const elapsed = [elapsedText(job, now), costText(job, now)].filter(Boolean).join(' · ');
  const progress = job.state === 'running' ? job.progress[0] : undefined;
  const second = progress ? barText(progress) : factsOf(job);
  return (
    <div
      {...common}
      aria-label={[titleOf(job), job.state, elapsed, second].filter(Boolean).join(', ')}
      title={[job.name, job.summary, job.notebook].filter(Boolean).join('\n')}
      data-job={job.name}
      data-host={job.host}
      data-state={job.state}
      data-kind={job.kind}
      onClick={() => props.onSelect(job)}
      onDoubleClick={() => props.onOpen(job)}
    >
      <div className="jp-RemoteExec-jobFirst">
        <StateSign state={job.state} />
        <span className="jp-RemoteExec-name">
          {isNumbered(job) ? job.function : titleOf(job)}
          {isNumbered(job) && (
            <span className="jp-RemoteExec-quiet">{job.name.slice(job.function.length)}</span>
          )}
        </span>
        <span className="jp-RemoteExec-quiet">{elapsed}</span>
      </div>
      <div className="jp-RemoteExec-jobSecond">
        {progress && <ProgressBar bar={progress} />}
        <span className="jp-RemoteExec-quiet">{second}</span>
      </div>
    </div>
  );
});

/** Whether a job's name is its function's, with what tells calls apart. */
function isNumbered(job: Job): boolean {
  return job.name.startsWith(`${job.function}-`);
}

function factsOf(job: Job): string {
  const times = job.count > 1 ? `× ${job.count}` : '';
  const function_ = isNumbered(job) ? times : `${functionOf(job)} ${times}`.trim();
  const ended =
    isActive(job) || job.state === 'cancelled' ? '' : job.summary || causeText(job.cause, job.state);
  const place = job.host === 'local' ? job.instance_type : job.instance_type || job.host;
  return [job.state, ended || function_, place].filter(Boolean).join(' · ');
}
