import * as React from 'react';

import { exactText, hasSteps, Over, plotOf, Plot, unitOf, valueText } from '../model/chart';
import { MetricsModel, Series, SYSTEM } from '../model/metrics';
import { duration, ticking } from '../format';
import { useModel, useWidth } from './hooks';
import { Message, ProblemMessage } from './parts';

const HEIGHT = 150; // pixels
const HOW =
  'from remote_exec import log_metrics\n\nlog_metrics({"loss": loss, "accuracy": accuracy}, step=epoch)';

/** A job's metrics as charts that grow while it runs. */
export function MetricsView({ metrics }: { metrics: MetricsModel }): React.JSX.Element {
  useModel(metrics);
  React.useEffect(() => metrics.show(), [metrics]);
  const [over, setOver] = React.useState<Over>('step');
  const all = [...metrics.series.values()];
  const logged = all.filter(({ name }) => !name.startsWith(SYSTEM));
  const used = all.filter(({ name }) => name.startsWith(SYSTEM));
  if (!metrics.begun) {
    return metrics.problem ? (
      <ProblemMessage problem={metrics.problem} />
    ) : (
      <Message title="Loading the metrics…" />
    );
  }
  const charts = (series: Series[]) => (
    <div className="jp-RemoteExec-charts">
      {series.map(one => (
        <Chart key={one.name} series={one} over={over} origin={metrics.origin} />
      ))}
    </div>
  );
  return (
    <div className="jp-RemoteExec-metrics" tabIndex={0} role="region" aria-label="Metrics">
      {metrics.problem && <ProblemMessage problem={metrics.problem} />}
      {logged.length === 0 && (
        <Message title={metrics.ended ? 'It has logged no metrics.' : 'No metrics logged yet.'}>
          <p>In the function, or in a remote cell:</p>
          <pre className="jp-RemoteExec-code">{HOW}</pre>
        </Message>
      )}
      {logged.some(hasSteps) && (
        <div className="jp-RemoteExec-over">
          <span aria-hidden="true">Over</span>
          <select
            className="jp-RemoteExec-input"
            aria-label="Draw over"
            value={over}
            onChange={event => setOver(event.target.value as Over)}
          >
            <option value="step">steps</option>
            <option value="time">time</option>
          </select>
        </div>
      )}
      {logged.length > 0 && charts(logged)}
      {used.length > 0 && <h3>What it uses</h3>}
      {used.length > 0 && charts(used)}
      {metrics.leftOut > 0 && (
        <p className="jp-RemoteExec-quiet">
          {metrics.leftOut} more are not shown; <code>remote-exec metrics</code> has them all.
        </p>
      )}
    </div>
  );
}

const Chart = React.memo(function Chart(props: {
  series: Series;
  over: Over;
  origin: number;
}): React.JSX.Element {
  const { series, over, origin } = props;
  const [reference, width] = useWidth<HTMLDivElement>();
  const [pointed, point] = React.useState<number | null>(null);
  const plot = React.useMemo(
    () => (width > 0 ? plotOf(series, over, origin, width, HEIGHT) : null),
    [series, over, origin, width]
  );
  const unit = unitOf(series.name);
  const name = series.name.startsWith(SYSTEM)
    ? series.name.slice(SYSTEM.length).replace(`_${unit}`, '').replace('_', ' ')
    : series.name;
  const last = valueText(series.last, unit);
  const at = pointed === null ? undefined : series.samples[pointed];
  return (
    <figure className="jp-RemoteExec-chart" data-metric={series.name} data-count={series.count}>
      <figcaption>
        <span className="jp-RemoteExec-name" title={series.name}>
          {name}
        </span>
        <span title={exactText(series.last, unit)}>
          {at ? `${exactText(at[2] ?? (at[5] || 'NaN'), unit)} at ${place(at[0] - origin, at[1])}` : last}
        </span>
      </figcaption>
      <div ref={reference} style={{ height: HEIGHT }}>
        {plot && (
          <Drawing
            plot={plot}
            width={width}
            label={`${name}: ${last} at the end of ${series.count} ${series.count === 1 ? 'point' : 'points'}`}
            pointed={pointed}
            onPoint={point}
          />
        )}
      </div>
      {series.odd > 0 && (
        <div className="jp-RemoteExec-odd">
          {series.odd} of {series.count} {series.count === 1 ? 'value' : 'values'}{' '}
          {series.odd === 1 ? 'is' : 'are'} not finite
        </div>
      )}
      <Table series={series} origin={origin} />
    </figure>
  );
});

function Drawing(props: {
  plot: Plot;
  width: number;
  label: string;
  pointed: number | null;
  onPoint: (index: number | null) => void;
}): React.JSX.Element {
  const { plot, width, label, pointed, onPoint } = props;
  const mark = pointed === null ? null : plot.places[pointed];
  const onMove = (event: React.MouseEvent<SVGSVGElement>) => {
    onPoint(nearest(plot, event.clientX - event.currentTarget.getBoundingClientRect().left));
  };
  return (
    <svg
      role="img"
      aria-label={label}
      width={width}
      height={HEIGHT}
      onMouseMove={onMove}
      onMouseLeave={() => onPoint(null)}
    >
      {plot.y.map(({ at, text }) => (
        <React.Fragment key={text}>
          <line x1={plot.left} x2={plot.right} y1={at} y2={at} />
          <text x={plot.left - 5} y={at} textAnchor="end" dominantBaseline="central">
            {text}
          </text>
        </React.Fragment>
      ))}
      {plot.x.map(({ at, text }) => (
        <text key={text} x={at} y={HEIGHT - 5} textAnchor={at > plot.right - 20 ? 'end' : 'middle'}>
          {text}
        </text>
      ))}
      {plot.band && <path className="jp-RemoteExec-chartBand" d={plot.band} />}
      <path className="jp-RemoteExec-chartLine" d={plot.line} />
      {plot.dots.map(({ x, y }, index) => (
        <circle key={index} cx={x} cy={y} r={2.5} />
      ))}
      {plot.odds.map(({ x, y, what }, index) => (
        <path
          key={index}
          className="jp-RemoteExec-chartOdd"
          d={what === '-Infinity' ? `M${x - 4} ${y - 7}h8l-4 7z` : `M${x - 4} ${y + 7}h8l-4 -7z`}
        />
      ))}
      {mark && <circle cx={mark.x} cy={mark.y} r={4} className="jp-RemoteExec-chartPoint" />}
    </svg>
  );
}

function nearest(plot: Plot, x: number): number | null {
  let found: number | null = null;
  let least = Infinity;
  plot.places.forEach((place, index) => {
    const distance = place ? Math.abs(place.x - x) : Infinity;
    if (distance < least) {
      [found, least] = [index, distance];
    }
  });
  return found;
}

/** The numbers of a chart, for who cannot see it, or wants to know exactly. */
function Table({ series, origin }: { series: Series; origin: number }): React.JSX.Element {
  const [isOpen, open] = React.useState(false);
  const unit = unitOf(series.name);
  const each = series.count > series.samples.length;
  return (
    <details onToggle={event => open(event.currentTarget.open)}>
      <summary aria-label={`Table of ${series.name}`}>Table</summary>
      {isOpen && (
        <div className="jp-RemoteExec-chartTable" tabIndex={0} role="region" aria-label={series.name}>
          <table>
            <thead>
              <tr>
                <th scope="col">Time</th>
                {hasSteps(series) && <th scope="col">Step</th>}
                <th scope="col">Value</th>
                {each && <th scope="col">Least</th>}
                {each && <th scope="col">Most</th>}
              </tr>
            </thead>
            <tbody>
              {series.samples.map(([time, step, value, least, most, odd], index) => (
                <tr key={index}>
                  <td>{duration(time - origin)}</td>
                  {hasSteps(series) && <td>{step}</td>}
                  <td>
                    {[value === null ? '' : exactText(value, unit), odd && exactText(odd, unit)]
                      .filter(Boolean)
                      .join(', ')}
                  </td>
                  {each && <td>{least === null ? '' : exactText(least, unit)}</td>}
                  {each && <td>{most === null ? '' : exactText(most, unit)}</td>}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </details>
  );
}

function place(seconds: number, step: number | null): string {
  return step === null ? ticking(seconds) : `step ${step}`;
}
