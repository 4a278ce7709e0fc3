use castra_benches::crowd::{Crowd, Proofs};
use std::time::Duration;
fn main() {
    let what = std::env::args().nth(1).unwrap();
    let n: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let proofs = if what.ends_with("keyed") && !what.ends_with("unkeyed") { Proofs::Keyed } else { Proofs::Unkeyed };
    let crowd = Crowd::new(n, proofs, Duration::from_secs(4));
    let kind = what.split('-').next().unwrap();
    let (mut script, ops) = crowd.script(
        |c| { for _ in 0..200 { c.arrive(n); c.leave(n); } c.advance(Duration::from_secs(2)); },
        |c| match kind {
            "handshake" => { for _ in 0..500 { c.arrive(n); c.leave(n); c.advance(Duration::from_micros(10)); } 500 }
            "keepalive" => c.advance(Duration::from_secs(5)),
            "status" => { c.status(); n }
            _ => panic!(),
        },
    );
    drop(crowd);
    play(&mut script);
    println!("ops {ops}");
}
#[inline(never)]
fn play(s: &mut castra_benches::crowd::Script) { println!("{:?}", s.play()); }
