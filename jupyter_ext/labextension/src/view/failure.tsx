import * as React from 'react';

import { Failure, Frame } from '../types';

/** An exception with its frames and their locals; as plain text where the frames were not kept. */
export function FailureView({ failure, text }: { failure: Failure | null; text: string }): React.JSX.Element {
  return (
    <div className="jp-RemoteExec-failure" tabIndex={0}>
      {failure ? <ChainView failure={failure} /> : <pre className="jp-RemoteExec-code">{text}</pre>}
    </div>
  );
}

function ChainView({ failure }: { failure: Failure }): React.JSX.Element {
  const before = failure.cause ?? failure.context;
  return (
    <>
      {before && (
        <>
          <ChainView failure={before} />
          <p className="jp-RemoteExec-quiet">
            {failure.cause ? 'It was the direct cause of:' : 'While that was handled, this was raised:'}
          </p>
        </>
      )}
      <section>
        <h3 className="jp-RemoteExec-error">
          {failure.type.replace(/^builtins\./, '')}
          {failure.message && `: ${failure.message}`}
        </h3>
        {failure.notes.map((note, number) => (
          <p key={number}>{note}</p>
        ))}
        {failure.frames.map((frame, number) => (
          <FrameView key={number} frame={frame} isLast={number === failure.frames.length - 1} />
        ))}
        {failure.members.map((member, number) => (
          <details key={number} open>
            <summary>member {number + 1}</summary>
            <ChainView failure={member} />
          </details>
        ))}
      </section>
    </>
  );
}

const UNPACKED = /^.*\/[0-9a-f]{64}-[^/]*\//; // where files that have travelled are unpacked

function FrameView({ frame, isLast }: { frame: Frame; isLast: boolean }): React.JSX.Element {
  const locals = Object.entries(frame.locals ?? {});
  const source = frame.source ? frame.source.replace(/\n$/, '').split('\n') : [frame.line];
  const start = frame.source ? frame.source_start : frame.lineno;
  return (
    <details open={isLast} className="jp-RemoteExec-frame">
      <summary title={frame.filename}>
        {frame.filename.replace(UNPACKED, '')}:{frame.lineno} in <b>{frame.name}</b>
      </summary>
      <pre className="jp-RemoteExec-code">
        {source.map((line, number) => (
          <div key={number} data-here={start + number === frame.lineno || undefined}>
            {String(start + number).padStart(4)} {line}
          </div>
        ))}
      </pre>
      {locals.length > 0 && (
        <dl className="jp-RemoteExec-facts">
          {locals.map(([name, value]) => (
            <React.Fragment key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </React.Fragment>
          ))}
        </dl>
      )}
    </details>
  );
}
