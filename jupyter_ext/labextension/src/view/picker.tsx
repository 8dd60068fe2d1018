import * as React from 'react';

import { remoteIcon } from '../icons';
import { NotebookDefault } from '../model/notebook_default';
import { problemOf, Requests } from '../requests';
import { InstanceTypes, Problem } from '../types';
import { useModel } from './hooks';

const AGAIN_MILLISECONDS = 3000; // between two looks at what was wrong: the file may have been corrected
const MEND = 'Until that file is corrected and saved, remote cells that use it end with this error.';

/** Picks where a notebook's `%%remote` cells run. */
export function Picker(props: {
  model: NotebookDefault;
  requests: Requests;
  /** Says at length what is wrong, where there is no room for it; else it is said below the picker. */
  explain?: (title: string, problem: Problem) => void;
}): React.JSX.Element {
  const { model, requests, explain } = props;
  useModel(model);
  const [types, problem, load] = useInstanceTypes(model, requests);
  const id = React.useId();

  const chosen = model.instanceType;
  const names = types?.instance_types.map(type => type.name) ?? [];
  const title =
    problem?.status === 400 ? 'Error in the configuration' : 'The instance types are not known now';
  const select = (
    <select
      className="jp-RemoteExec-input"
      aria-label="Instance type of remote cells"
      aria-invalid={problem !== null}
      aria-describedby={problem ? id : undefined}
      title="Where this notebook’s remote cells run"
      value={chosen}
      onFocus={load}
      onChange={event => void model.use(event.target.value)}
    >
      <option value="">{defaultText(types?.default ?? '', names)}</option>
      {chosen && types && !names.includes(chosen) && (
        <option value={chosen}>{chosen} (not configured)</option>
      )}
      {chosen && !types && <option value={chosen}>{chosen}</option>}
      {types?.instance_types.map(type => (
        <option key={type.name} value={type.name} title={type.source}>
          {[...new Set([type.name, type.shape || type.backend])].filter(Boolean).join(': ')}
        </option>
      ))}
    </select>
  );
  if (explain) {
    return (
      <>
        <remoteIcon.react tag="span" className="jp-RemoteExec-toolbarIcon" width="16px" height="16px" />
        {select}
        {problem && (
          <button
            type="button"
            className="jp-RemoteExec-trouble"
            title={problem.message}
            onClick={() => explain(title, problem)}
          >
            <span aria-hidden="true">⚠</span> {title}
          </button>
        )}
        {problem && (
          <span id={id} className="jp-RemoteExec-unseen">
            {problem.message} {problem.hint}
          </span>
        )}
      </>
    );
  }
  return (
    <>
      <label className="jp-RemoteExec-picker">Remote cells on {select}</label>
      {problem && (
        <div className="jp-RemoteExec-pickerProblem jp-RemoteExec-error" role="alert" id={id}>
          <p>
            <b>{title}:</b> {problem.message}
          </p>
          {problem.hint && <p>{problem.hint}</p>}
        </div>
      )}
    </>
  );
}

/** Return what there is to pick from, what is wrong with it, and a function that asks anew. */
function useInstanceTypes(
  model: NotebookDefault,
  requests: Requests
): [InstanceTypes | null, Problem | null, () => void] {
  const [types, setTypes] = React.useState<InstanceTypes | null>(null);
  const [problem, setProblem] = React.useState<Problem | null>(null);
  const load = React.useCallback(() => {
    requests.instanceTypes(model.path).then(
      found => {
        setTypes(found);
        setProblem(null);
      },
      (error: unknown) => {
        const found = problemOf(error);
        setProblem(found.status === 400 && !found.hint ? { ...found, hint: MEND } : found);
      }
    );
  }, [requests, model]);
  React.useEffect(load, [load]);
  React.useEffect(() => {
    if (problem !== null) {
      const timer = setTimeout(load, AGAIN_MILLISECONDS);
      return () => clearTimeout(timer);
    }
    return undefined;
  }, [problem, load]);
  return [types, problem, load];
}

function defaultText(name: string, known: string[]): string {
  return name ? `default (${name}${known.includes(name) ? '' : ', not configured'})` : 'default';
}
