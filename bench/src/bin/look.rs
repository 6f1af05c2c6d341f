//! What one look of the judge costs: five metrics, over hours of made-up counts, so that many epochs have passed.

use judge::{Closing, Measured, MetricKind, Plan, Scales, Share, Tallies, Tally};

fn of(drawn: u64, ended: u64, bad: u64) -> Tally {
    Tally { drawn, ended, answering: 0, bad: [bad; judge::SETS_MAX] }
}

fn main() {
    for closing in [30, 120] {
        let closes = Closing { candidate: 1, stable: 1 };
        let of_errors = Closing { candidate: closing, stable: closing };
        let metrics = (0..5).map(|number| Measured {
            name: format!("metric {number}"),
            kind: if number == 0 { MetricKind::Error } else { MetricKind::Latency },
            part: 0.2,
            phi: Some(1.0),
            sets: if number == 0 { [0, 0] } else { [number, number + 1] },
            closing: [if number == 0 { of_errors } else { closes }; 2],
            since: Some(1),
        });
        let plan = Plan { closing, timeout_bad: closing, ..Plan::default() };
        let mut scales = Scales::new(plan, metrics.collect(), Vec::new());
        scales.begin_step(0, Share::of_weight(2_000), 10_000);
        scales.acknowledged(0);
        let mut spent = Vec::new();
        for now in 0..9_000 {
            if scales.is_due(now) {
                scales.open_next(now);
                scales.acknowledged(now);
            }
            scales.put(scales.epoch(), now, Tallies { candidate: of(200, 199, 1), stable: of(800, 800, 1) });
            let began = std::time::Instant::now();
            std::hint::black_box(scales.look(now + 1));
            spent.push(began.elapsed());
        }
        spent.sort_unstable();
        println!(
            "closing age {closing} s, 5 metrics, {} epochs: {:.1} µs a look, 99 % below {:.1} µs",
            scales.epoch(),
            spent[spent.len() / 2].as_secs_f64() * 1e6,
            spent[spent.len() * 99 / 100].as_secs_f64() * 1e6,
        );
    }
}
