import { copyIcon, launchIcon, linkIcon, runIcon, stopIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { basename } from '../format';
import { Filter, JobsModel } from '../model/jobs';
import { Job, Problem, STATES, State, Window } from '../types';
import { isActive, JobActions, whyNoAttach, whyNoRerun } from './actions';
import { useActions, useModel, useNow, useScroll } from './hooks';
import { JobRow } from './job_row';
import { HEAD, layOut, ROW, topOf } from './layout';
import { IconButton, Message, ProblemMessage, SearchField, Stale } from './parts';

const TYPING_PAUSE = 200; // milliseconds, until what was typed is searched for
const NO_ANSWER: Problem = {
  message: 'The agent on this machine does not answer.',
  hint: 'remote-exec doctor',
  status: 503
};

interface JobsProps {
  model: JobsModel;
  actions: JobActions;
}

/** The list of jobs with its filters and the selected job's actions. */
export function JobsView({ model, actions }: JobsProps): React.JSX.Element {
  useModel(model);
  return (
    <div className="jp-RemoteExec-jobs">
      <Filters model={model} />
      <SelectedActions model={model} actions={actions} />
      {model.window !== null && !model.isLive && <Stale problem={model.problem} />}
      {model.window?.agent === 'unreachable' && model.isLive && <Stale problem={NO_ANSWER} />}
      <List model={model} actions={actions} />
    </div>
  );
}

function Filters({ model }: { model: JobsModel }): React.JSX.Element {
  const [typed, setTyped] = React.useState(model.filter.search);
  const change = (part: Partial<Filter>) => {
    model.filter = { ...model.filter, ...part };
  };
  React.useEffect(() => {
    const timer = setTimeout(() => {
      if (typed !== model.filter.search) {
        model.filter = { ...model.filter, search: typed };
      }
    }, TYPING_PAUSE);
    return () => clearTimeout(timer);
  }, [typed, model]);
  const toList = (event: React.KeyboardEvent) => {
    const view = event.currentTarget.closest('.jp-RemoteExec-jobs');
    const list = event.key === 'ArrowDown' ? view?.querySelector<HTMLElement>('[role=listbox]') : null;
    if (list) {
      list.focus();
      event.preventDefault();
    }
  };
  const { states, group, host } = model.filter;
  const hosts = model.window?.hosts ?? [];
  return (
    <div className="jp-RemoteExec-filters" role="search" aria-label="Filter jobs">
      <SearchField label="Search jobs" value={typed} onSearch={setTyped} onKeyDown={toList} />
      <div>
        <select
          className="jp-RemoteExec-input"
          aria-label="State"
          value={states[0] ?? ''}
          onChange={event => change({ states: event.target.value ? [event.target.value as State] : [] })}
        >
          <option value="">all states</option>
          {STATES.map(state => (
            <option key={state} value={state}>
              {state} {model.window ? `(${model.window.counts[state]})` : ''}
            </option>
          ))}
        </select>
        <select
          className="jp-RemoteExec-input"
          aria-label="Group by"
          value={group}
          onChange={event => change({ group: event.target.value as Filter['group'] })}
        >
          <option value="">not grouped</option>
          <option value="host">by host</option>
          <option value="notebook">by notebook</option>
        </select>
        {(hosts.length > 1 || host) && (
          <select
            className="jp-RemoteExec-input"
            aria-label="Host"
            value={host}
            onChange={event => change({ host: event.target.value })}
          >
            <option value="">all hosts</option>
            {hosts.map(name => (
              <option key={name}>{name}</option>
            ))}
          </select>
        )}
      </div>
    </div>
  );
}

function SelectedActions({ model, actions }: JobsProps): React.JSX.Element {
  useActions(actions);
  const job = model.selected;
  const button = (icon: typeof stopIcon, label: string, act: (job: Job) => void, can = true, why = '') => (
    <IconButton
      icon={icon}
      label={label}
      disabled={job === null || !can}
      why={why}
      onClick={() => job && act(job)}
    />
  );
  return (
    <div className="jp-RemoteExec-actions" role="toolbar" aria-label="Selected job">
      {button(launchIcon, 'Open', actions.open)}
      {button(stopIcon, 'Cancel', actions.cancel, job !== null && isActive(job))}
      {button(runIcon, 'Run again', actions.rerun, true, job ? whyNoRerun(job) : '')}
      {button(copyIcon, 'Copy its name', actions.copyId)}
      {button(linkIcon, 'Attach in the notebook', actions.attach, true, job ? whyNoAttach(job, actions) : '')}
      <span className="jp-RemoteExec-quiet" aria-live="polite">
        {model.window ? countOf(model.window) : ''}
      </span>
    </div>
  );
}

function countOf({ total, more }: Window): string {
  return total === 1 && !more ? '1 job' : `${total}${more ? '+' : ''} jobs`;
}

function List({ model, actions }: JobsProps): React.JSX.Element {
  const [reference, scrolled, height, onScroll] = useScroll<HTMLDivElement>();
  const { window } = model;
  const total = window?.total ?? 0;
  const groups = window?.groups ?? [];
  const layout = layOut(total, groups, scrolled, height);
  const now = useNow((window?.counts.running ?? 0) > 0);
  const prefix = React.useId();
  const onSelect = React.useCallback((job: Job) => model.select(job), [model]);
  const onOpen = React.useCallback((job: Job) => actions.open(job), [actions]);
  React.useEffect(() => model.see(layout.first, layout.end), [model, layout.first, layout.end, total]);

  const go = (index: number) => {
    const wanted = Math.max(0, Math.min(total - 1, index));
    const element = reference.current;
    if (element !== null) {
      const top = topOf(wanted, groups);
      if (top - HEAD < element.scrollTop) {
        element.scrollTop = top - HEAD;
      } else if (top + ROW > element.scrollTop + height) {
        element.scrollTop = top + ROW - height;
      }
    }
    model.selectAt(wanted);
  };
  const onKeyDown = (event: React.KeyboardEvent) => {
    const at = model.selectedIndex;
    const page = Math.max(1, Math.floor(height / ROW) - 1);
    const moves: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: total - 1
    };
    const move = moves[event.key];
    if (move !== undefined) {
      go(move);
    } else if (event.key === 'Enter' && model.selected) {
      actions.open(model.selected);
    } else if (event.key === 'Delete' && model.selected && isActive(model.selected)) {
      actions.askToCancel(model.selected);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  };

  const selected = model.selectedIndex;
  return (
    <div
      ref={reference}
      className="jp-RemoteExec-list"
      onScroll={onScroll}
      {...(total > 0
        ? {
            role: 'listbox',
            tabIndex: 0,
            'aria-label': 'Jobs',
            'aria-activedescendant': selected < 0 ? undefined : `${prefix}${selected}`,
            onKeyDown
          }
        : {})}
    >
      {total === 0 ? (
        <Nothing model={model} />
      ) : (
        <div className="jp-RemoteExec-rows" role="presentation" style={{ height: layout.height }}>
          {layout.placed.map(({ kind, index, top }) => {
            if (kind === 'head') {
              const group = groups[index];
              return (
                <div
                  key={`head ${index}`}
                  className="jp-RemoteExec-head"
                  role="presentation"
                  title={group?.name}
                  style={{ transform: `translateY(${top}px)` }}
                >
                  {basename(group?.name ?? '') || 'no notebook'} ({group?.count})
                </div>
              );
            }
            const job = model.at(index);
            return (
              <JobRow
                key={job?.key ?? index}
                id={`${prefix}${index}`}
                {...{ job, index, total, top, onSelect, onOpen }}
                now={job?.state === 'running' ? now : 0}
                isSelected={index === selected}
              />
            );
          })}
        </div>
      )}
    </div>
  );
}

function Nothing({ model }: { model: JobsModel }): React.JSX.Element {
  if (model.window === null) {
    return model.problem ? <ProblemMessage problem={model.problem} /> : <Message title="Loading jobs…" />;
  }
  if (model.isFiltered) {
    return <Message title="No job is like that." />;
  }
  return (
    <Message title="No jobs yet.">
      <p className="jp-RemoteExec-quiet">
        Put <code>%%remote</code> on a cell, or <code>@remote</code> on a function, and what runs shows up
        here.
      </p>
      {model.window.agent === 'none' && <p className="jp-RemoteExec-quiet">No agent runs on this machine.</p>}
    </Message>
  );
}
