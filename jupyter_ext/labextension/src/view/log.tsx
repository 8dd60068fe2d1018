import { caretDownIcon, caretUpIcon, downloadIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { Style } from '../model/ansi';
import { Line, LogModel, piecesOf } from '../model/log';
import { useModel, useScroll } from './hooks';
import { IconButton, Message, ProblemMessage, SearchField } from './parts';

const LINE = 18; // pixels; see .jp-RemoteExec-line
const AROUND = 20;

/** A job's output: follows its end, searches, and can be downloaded. */
export function LogView({ log, onDownload }: { log: LogModel; onDownload: () => void }): React.JSX.Element {
  useModel(log);
  const [reference, scrolled, height, onScroll] = useScroll<HTMLDivElement>();
  const [follows, setFollows] = React.useState(true);
  const [wanted, setWanted] = React.useState('');
  const [chosen, setChosen] = React.useState(0);
  const found = log.find(wanted);
  const { lines } = log;

  const around = (number: number) => ((number % found.length) + found.length) % found.length;
  const at = found.length ? around(chosen) : -1;
  React.useLayoutEffect(() => {
    const element = reference.current;
    if (element && follows) {
      element.scrollTop = element.scrollHeight;
    }
  });
  const show = (line: number | undefined) => {
    if (reference.current && line !== undefined) {
      setFollows(false);
      reference.current.scrollTop = line * LINE - height / 2;
    }
  };
  const seek = (number: number) => {
    setChosen(number);
    show(found[around(number)]);
  };
  const search = (text: string) => {
    setWanted(text);
    setChosen(0);
    show(log.find(text)[0]);
  };
  const onUserScroll = () => {
    onScroll();
    const element = reference.current;
    if (element) {
      setFollows(element.scrollTop + element.clientHeight >= element.scrollHeight - LINE);
    }
  };

  const first = Math.max(0, Math.floor(scrolled / LINE) - AROUND);
  const end = Math.min(lines.length, Math.ceil((scrolled + height) / LINE) + AROUND);
  return (
    <div className="jp-RemoteExec-log">
      <div className="jp-RemoteExec-logBar" role="toolbar" aria-label="Log">
        <SearchField
          label="Search the log"
          value={wanted}
          onSearch={search}
          onKeyDown={event => {
            if (event.key === 'Enter') {
              seek(at + (event.shiftKey ? -1 : 1));
            }
          }}
        />
        <span className="jp-RemoteExec-quiet" aria-live="polite">
          {wanted ? `${at + 1}/${found.length}` : ''}
        </span>
        <IconButton
          icon={caretUpIcon}
          label="Previous match"
          disabled={at < 0}
          onClick={() => seek(at - 1)}
        />
        <IconButton icon={caretDownIcon} label="Next match" disabled={at < 0} onClick={() => seek(at + 1)} />
        <label>
          <input type="checkbox" checked={follows} onChange={event => setFollows(event.target.checked)} />{' '}
          Follow
        </label>
        <IconButton icon={downloadIcon} label="Download the log" onClick={onDownload} />
      </div>
      {log.problem && log.problem.status !== 0 && <ProblemMessage problem={log.problem} />}
      <div
        ref={reference}
        className="jp-RemoteExec-lines"
        role="log"
        aria-label="Output"
        aria-live="off"
        tabIndex={0}
        onScroll={onUserScroll}
      >
        {lines.length === 0 && (
          <Message
            title={
              !log.begun ? 'Loading the log…' : log.ended ? 'It printed nothing.' : 'Nothing printed yet.'
            }
          />
        )}
        <div style={{ height: lines.length * LINE }} className="jp-RemoteExec-rows">
          {lines.slice(first, end).map((line, number) => {
            const index = first + number;
            return (
              <LineView
                key={index + log.dropped}
                line={line}
                top={index * LINE}
                wanted={wanted}
                isFound={found[at] === index}
              />
            );
          })}
        </div>
      </div>
      {log.dropped > 0 && (
        <div className="jp-RemoteExec-quiet">The first {log.dropped} lines are only in the download.</div>
      )}
    </div>
  );
}

const LineView = React.memo(function LineView(props: {
  line: Line;
  top: number;
  wanted: string;
  isFound: boolean;
}): React.JSX.Element {
  const { line, top, wanted, isFound } = props;
  return (
    <div
      className="jp-RemoteExec-line"
      data-stream={line.stream}
      data-found={isFound || undefined}
      style={{ transform: `translateY(${top}px)` }}
    >
      {piecesOf(line, wanted).map(({ text, style, isMatch }, number) =>
        isMatch ? (
          <mark key={number} className="jp-RemoteExec-match">
            {text}
          </mark>
        ) : (
          <span key={number} className={classesOf(style)} style={coloursOf(style)}>
            {text}
          </span>
        )
      )}
    </div>
  );
});

/** Return a span's text colour and background; inverse, they change places. */
function paintOf({ fg, bg, inverse }: Style): Pick<Style, 'fg' | 'bg'> {
  return inverse ? { fg: bg, bg: fg } : { fg, bg };
}

function classesOf(style: Style): string | undefined {
  const { fg, bg } = paintOf(style);
  const names = [
    style.bold && 'bold',
    style.dim && 'dim',
    style.italic && 'italic',
    style.underline && 'underline',
    style.inverse && 'inverse',
    fg && !fg.includes(',') && `fg${fg}`,
    bg && !bg.includes(',') && `bg${bg}`
  ].filter(Boolean);
  return names.length ? names.map(name => `jp-RemoteExec-ansi-${name}`).join(' ') : undefined;
}

function coloursOf(style: Style): React.CSSProperties | undefined {
  const { fg, bg } = paintOf(style);
  if (!fg?.includes(',') && !bg?.includes(',')) {
    return undefined;
  }
  return {
    color: fg?.includes(',') ? `rgb(${fg})` : undefined,
    backgroundColor: bg?.includes(',') ? `rgb(${bg})` : undefined
  };
}
