//! Many sockets that do as they are told, line by line.

use crate::{
    SocketsArgs, Who,
    crowd::Crowd,
    place::Place,
    publishers::{self, Publishers, Schedule},
    wire::Seat,
};
use serde_json::{Value as Json, json};
use std::{io::BufRead, sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

/// How long what was published may be on its way after the last publication.
const DRAIN: Duration = Duration::from_secs(3);
/// From the command to the first publication.
const LEAD: Duration = Duration::from_millis(20);

/// Opens the connections and obeys standard input.
///
/// # Errors
/// A connection that could not be opened, or a command that is none.
pub(crate) async fn run(args: &SocketsArgs, tokens: Vec<String>) -> Result<(), String> {
    let place =
        Place { wire: args.wire, address: args.who.address, receive_buffer: args.receive_buffer };
    let (seats, publishers) = seats(place, &args.who, tokens).await?;
    let mut crowd = Crowd::open(place, seats).await?;
    println!("{}", json!({ "open": args.who.connections }));
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        let words: Vec<&str> = command.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().map_err(|_| format!("{command}?"));
        let answer = match words.as_slice() {
            ["hold", _] => {
                sleep(Duration::from_secs(number(1)?)).await;
                let tally = &crowd.tally;
                json!({ "pings": tally.pings.load(Relaxed), "lost": tally.lost.load(Relaxed) })
            }
            ["window", _, _, _] => {
                let (rate, seconds) = (number(1)?, number(2)?);
                let bytes = number(3)? as usize;
                let schedule = Schedule { rate, count: rate * seconds, bytes };
                let publishers = publishers.as_ref().ok_or("a window is over rooms")?;
                window(&crowd, publishers, schedule).await
            }
            ["stall", _] => {
                crowd.stall(number(1)? as usize);
                json!({ "stalled": number(1)? })
            }
            ["restore"] => {
                crowd.restore().await?;
                json!({ "stalled": 0 })
            }
            _ => return Err(format!("`{command}` is no command")),
        };
        println!("{answer}");
    }
    Ok(())
}

/// Who sits where, and, if there are rooms, who publishes to them.
///
/// # Errors
/// Too few tokens, or a publisher that could not be opened.
pub(crate) async fn seats(
    place: Place,
    who: &Who,
    tokens: Vec<String>,
) -> Result<(Vec<Seat>, Option<Publishers>), String> {
    let wire = place.wire;
    let needed = who.connections + publishers::MOST.min(who.rooms);
    // Wires without tokens take none.
    let tokens = if who.tokens == 0 { vec![String::new(); needed] } else { tokens };
    if tokens.len() < needed {
        return Err(format!("{} tokens came, {needed} are needed", tokens.len()));
    }
    let (listeners, rest) = tokens.split_at(who.connections);
    let seat = |(at, token): (usize, &String)| {
        let channels = match who.rooms {
            0 => wire.own_and_lobby("load", at + 1),
            rooms => vec![wire.room(&who.prefix, at % rooms)],
        };
        Seat { token: token.clone(), channels }
    };
    let seats = listeners.iter().enumerate().map(seat).collect();
    if who.rooms == 0 {
        return Ok((seats, None));
    }
    let rooms = (0..who.rooms).map(|room| wire.room(&who.prefix, room)).collect();
    let publishers = Publishers::open(place, rest, rooms).await?;
    Ok((seats, Some(publishers)))
}

/// Publishes by schedule, and counts what comes until all came, or nothing more does.
async fn window(crowd: &Crowd, publishers: &Publishers, schedule: Schedule) -> Json {
    let tally = &crowd.tally;
    let readers = crowd.readers();
    let in_turn = publishers.channels().iter().map(|channel| readers[channel.as_str()]);
    let readers: Vec<u64> = in_turn.collect();
    let expected: u64 = (0..schedule.count).map(|at| readers[publishers.channel(at)]).sum();
    let (delivered, lost) = (tally.delivered.load(Relaxed), tally.lost.load(Relaxed));
    let refused = publishers.refused();
    tally.take_latencies();
    let sent = tally.now() + LEAD.as_micros() as u64;
    let began = Instant::now();
    publishers.run(schedule, began + LEAD, sent).await;
    let last = Instant::now();
    while tally.delivered.load(Relaxed) - delivered < expected && last.elapsed() < DRAIN {
        sleep(Duration::from_millis(5)).await;
    }
    let took = began.elapsed();
    let latencies = tally.take_latencies();
    json!({
        "published": schedule.count,
        "expected": expected,
        "delivered": tally.delivered.load(Relaxed) - delivered,
        "refused": publishers.refused() - refused,
        "lost": tally.lost.load(Relaxed) - lost,
        "seconds": took.as_secs_f64(),
        "p50_us": latencies.quantile(0.5),
        "p99_us": latencies.quantile(0.99),
        "max_us": latencies.quantile(1.0),
    })
}

/// The lines of standard input, as they come.
fn commands() -> mpsc::Receiver<String> {
    let (say, said) = mpsc::channel(8);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if say.blocking_send(line).is_err() {
                break;
            }
        }
    });
    said
}
