/** Small parts that several views draw. */

import { LabIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { barText, fraction } from '../format';
import { Bar, Problem, State } from '../types';

const GLYPHS: Record<State, string> = {
  queued: '◷',
  running: '▶',
  succeeded: '✓',
  failed: '✕',
  cancelled: '⊘'
};

/** A state's sign; its word stands beside it, or is told by `label`. */
export function StateSign({ state, label }: { state: State; label?: boolean }): React.JSX.Element {
  return (
    <span className="jp-RemoteExec-state" data-state={state}>
      <span aria-hidden="true">{GLYPHS[state]}</span>
      {label ? ` ${state}` : ''}
    </span>
  );
}

/**
 * A button with an icon: its label is read out, and shown on hovering.
 *
 * One that cannot be used for a reason (`why`) can be reached nevertheless, so that everybody hears the reason.
 */
export function IconButton(props: {
  icon: LabIcon;
  label: string;
  onClick: () => void;
  disabled?: boolean;
  why?: string;
}): React.JSX.Element {
  const label = props.why ? `${props.label}: ${props.why}` : props.label;
  return (
    <button
      type="button"
      className="jp-RemoteExec-iconButton"
      title={label}
      aria-label={label}
      aria-disabled={props.why ? true : undefined}
      disabled={props.disabled && !props.why}
      onClick={props.why ? undefined : props.onClick}
    >
      <props.icon.react tag="span" width="16px" height="16px" />
    </button>
  );
}

/** A field for what is searched for; its label stands in it, and is read out. */
export function SearchField(props: {
  label: string;
  value: string;
  onSearch: (text: string) => void;
  onKeyDown?: (event: React.KeyboardEvent) => void;
}): React.JSX.Element {
  return (
    <input
      type="search"
      className="jp-RemoteExec-input"
      placeholder={props.label}
      aria-label={props.label}
      value={props.value}
      onChange={event => props.onSearch(event.target.value)}
      onKeyDown={props.onKeyDown}
    />
  );
}

/** How far something is. */
export function ProgressBar({ bar }: { bar: Bar }): React.JSX.Element {
  const far = fraction(bar);
  return (
    <div
      className="jp-RemoteExec-progress"
      role="progressbar"
      aria-label={barText(bar) || 'progress'}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={far === null ? undefined : Math.round(100 * far)}
      data-endless={far === null || undefined}
    >
      <div style={{ width: far === null ? '100%' : `${100 * far}%` }} />
    </div>
  );
}

/** How much of something is used. */
export function Meter({
  label,
  text,
  share
}: {
  label: string;
  text: string;
  share: number;
}): React.JSX.Element {
  const percent = Math.round(100 * Math.min(1, Math.max(0, share)));
  return (
    <div className="jp-RemoteExec-meter">
      <span>{label}</span>
      <div
        className="jp-RemoteExec-meterBar"
        role="meter"
        aria-label={label}
        aria-valuetext={text}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={percent}
      >
        <div style={{ width: `${percent}%` }} data-high={percent >= 90 || undefined} />
      </div>
      <span className="jp-RemoteExec-quiet">{text}</span>
    </div>
  );
}

/** What is said in the place of a list: that it loads, is empty, or cannot be shown. */
export function Message({
  title,
  children
}: {
  title: string;
  children?: React.ReactNode;
}): React.JSX.Element {
  return (
    <div className="jp-RemoteExec-message" role="status">
      <p>{title}</p>
      {children}
    </div>
  );
}

/** What is wrong, with what to do about it. */
export function ProblemMessage({ problem }: { problem: Problem }): React.JSX.Element {
  return (
    <div className="jp-RemoteExec-message" role="alert">
      <p>{problem.message}</p>
      {problem.hint && <p className="jp-RemoteExec-quiet">{problem.hint}</p>}
    </div>
  );
}

/** A strip above what is shown yet, though it is not up to date. */
export function Stale({ problem }: { problem: Problem | null }): React.JSX.Element {
  return (
    <div className="jp-RemoteExec-stale" role="status" title={problem?.hint}>
      {problem?.message ?? 'Connecting…'} What you see may be out of date.
    </div>
  );
}
