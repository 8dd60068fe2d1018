import * as React from 'react';

import { NotebookDefault } from '../model/notebook_default';
import { Requests, told } from '../requests';
import { InstanceTypes } from '../types';
import { useModel } from './hooks';

/** Picks where a notebook's `%%remote` cells run. */
export function Picker(props: {
  model: NotebookDefault;
  requests: Requests;
  isLabelled?: boolean;
}): React.JSX.Element {
  const { model, requests, isLabelled } = props;
  useModel(model);
  const [types, setTypes] = React.useState<InstanceTypes | null>(null);
  const [trouble, setTrouble] = React.useState('');
  const load = React.useCallback(() => {
    requests.instanceTypes(model.path).then(
      found => {
        setTypes(found);
        setTrouble('');
      },
      (error: unknown) => setTrouble(told(error))
    );
  }, [requests, model]);
  React.useEffect(load, [load]);

  const chosen = model.instanceType;
  const names = types?.instance_types.map(type => type.name) ?? [];
  const select = (
    <select
      className="jp-RemoteExec-input"
      aria-label="Instance type of remote cells"
      title={trouble || 'Where this notebook’s remote cells run'}
      value={chosen}
      onFocus={load}
      onChange={event => void model.use(event.target.value)}
    >
      <option value="">{types?.default ? `default (${types.default})` : 'default'}</option>
      {chosen && !names.includes(chosen) && <option value={chosen}>{chosen} (not configured)</option>}
      {types?.instance_types.map(type => (
        <option key={type.name} value={type.name} title={type.source}>
          {[...new Set([type.name, type.shape || type.backend])].filter(Boolean).join(': ')}
        </option>
      ))}
    </select>
  );
  return isLabelled ? <label className="jp-RemoteExec-picker">Remote cells on {select}</label> : select;
}
