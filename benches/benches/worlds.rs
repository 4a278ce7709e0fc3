//! Simulated worlds with all checks on: events (calls of an engine's `handle`) per second.

use castra_sim::choice::Seeded;
use castra_sim::{Limits, Outcome, Plan, World};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// As many worlds as make a sample: single ones differ by a factor of a hundred.
const WORLDS: u64 = 200;

fn world(seed: u64) -> World {
    let mut choice = Seeded::new(seed);
    let plan = Plan::draw(&mut choice, &Limits::default());
    World::new(&plan, Box::new(choice))
}

fn run(worlds: impl Iterator<Item = World>) -> Outcome {
    let mut total = Outcome::default();
    for world in worlds {
        total += &world.run().expect("every promise holds");
    }
    total
}

fn worlds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("worlds");
    let total = run((0..WORLDS).map(world));
    group.throughput(Throughput::Elements(total.events));
    group.sample_size(10);
    group.bench_function("all checks", |bencher| {
        bencher.iter_batched(
            || (0..WORLDS).map(world).collect::<Vec<_>>(),
            |worlds| run(worlds.into_iter()),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, worlds);
criterion_main!(benches);
