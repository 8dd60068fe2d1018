import * as React from 'react';

import { causeText, duration, moment, size } from '../format';
import { Attempt, Death, Job } from '../types';
import { useNow } from './hooks';
import { Message, StateSign } from './parts';

/** What became of each attempt, and where its time went: no phase is silent. */
export function AttemptsView(props: { job: Job; attempts: Attempt[] }): React.JSX.Element {
  const attempts = props.attempts.length ? props.attempts : onlyAttempt(props.job);
  const now = useNow(attempts.some(attempt => attempt.started_at !== null && attempt.ended_at === null));
  if (attempts.length === 0) {
    return <Message title={props.job.ended_at === null ? 'It has not begun yet.' : 'It never began.'} />;
  }
  return (
    <div className="jp-RemoteExec-attempts" tabIndex={0}>
      {attempts.map(attempt => (
        <AttemptView key={attempt.number} attempt={attempt} now={now} />
      ))}
    </div>
  );
}

/** Return the one try of a call that its caller waits for: of such, no more is kept than when it ran. */
function onlyAttempt({ state, cause, started_at, ended_at }: Job): Attempt[] {
  return started_at === null
    ? []
    : [{ number: 1, state, cause, worker_pid: 0, started_at, ended_at, phases: [], death: null }];
}

function AttemptView({ attempt, now }: { attempt: Attempt; now: number }): React.JSX.Element {
  const phases = attempt.phases.map(phase => ({ ...phase, isRun: false }));
  if (attempt.started_at !== null) {
    const seconds = Math.max(0, (attempt.ended_at ?? now) - attempt.started_at);
    phases.push({ name: 'run', seconds, detail: '', isRun: true });
  }
  const whole = phases.reduce((sum, phase) => sum + phase.seconds, 0) || 1;
  let passed = 0;
  const cause = causeText(attempt.cause, attempt.state);
  return (
    <section>
      <h3>
        Attempt {attempt.number} <StateSign state={attempt.state} label />
      </h3>
      <p className="jp-RemoteExec-quiet">
        {[
          cause,
          attempt.worker_pid ? `process ${attempt.worker_pid}` : '',
          attempt.started_at === null ? '' : `started ${moment(attempt.started_at, now)}`
        ]
          .filter(Boolean)
          .join(' · ')}
      </p>
      {attempt.death && <DeathView death={attempt.death} />}
      <table className="jp-RemoteExec-timeline">
        <caption className="jp-RemoteExec-unseen">Phases of attempt {attempt.number}</caption>
        <thead className="jp-RemoteExec-unseen">
          <tr>
            <th scope="col">phase</th>
            <th scope="col">time</th>
            <th scope="col">share</th>
          </tr>
        </thead>
        <tbody>
          {phases.map((phase, number) => {
            const left = (100 * passed) / whole;
            passed += phase.seconds;
            return (
              <tr key={number} title={phase.detail}>
                <th scope="row">{phase.name}</th>
                <td>{duration(phase.seconds)}</td>
                <td aria-label={`${Math.round((100 * phase.seconds) / whole)} %`}>
                  <div
                    className="jp-RemoteExec-span"
                    data-run={phase.isRun || undefined}
                    style={{ marginLeft: `${left}%`, width: `${(100 * phase.seconds) / whole}%` }}
                  />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}

function DeathView({ death }: { death: Death }): React.JSX.Element {
  const facts = [
    death.signal === null ? '' : `signal ${death.signal}`,
    death.exit_code === null ? '' : `exit code ${death.exit_code}`,
    death.peak_memory ? `at most ${size(death.peak_memory)} of memory` : '',
    death.peak_gpu_memory ? `at most ${size(death.peak_gpu_memory)} of GPU memory` : '',
    death.oom_evidence
  ].filter(Boolean);
  return (
    <div className="jp-RemoteExec-error">
      <p>{death.message}</p>
      {facts.length > 0 && <p>{facts.join(' · ')}</p>}
      {death.last_lines.length > 0 && <pre>{death.last_lines.join('\n')}</pre>}
    </div>
  );
}
