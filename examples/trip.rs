//! A trip: an insurance only for those who want one, another airline where the first doesn't answer, and the
//! taxi that answers first.
//!
//! `cargo run --example trip` books three trips at six services, and compares what the services have in
//! their books at the end with what the saga says.

mod desk;

use std::time::Duration;

use amends::store::SqliteStore;
use amends::{Coordinator, Retry, Saga, SagaError, diagram, first_of, step};
use serde::{Deserialize, Serialize};

use desk::{Answer, Desk, Error, tell};

#[derive(Clone, Serialize, Deserialize)]
struct Trip {
    to: String,
    insured: bool,
}

/// Flight, insurance, hotel and taxi.
type Booked = (String, Option<String>, String, String);

struct Services {
    north_air: Desk<Trip>,
    south_air: Desk<Trip>,
    insurer: Desk<Trip>,
    hotel: Desk<Trip>,
    fast_cabs: Desk<Trip>,
    slow_cabs: Desk<Trip>,
}

fn trip(services: &Services) -> Result<Saga<Trip, Booked>, SagaError> {
    let at = |name: &str, desk: &Desk<Trip>| step(name, desk.clone());
    let mut saga = Saga::builder::<Trip>("trip");
    let trip = saga.input();
    let flight = saga.add(
        // No answer in time: nobody knows whether there is a seat. It is given back, if there is one, before
        // the other airline is asked.
        at("flight", &services.north_air)
            .timeout(Duration::from_millis(300))
            .retry(Retry::none())
            .fallback(at("south-air", &services.south_air)),
        trip,
    );
    let insurance = saga.add(
        at("insurance", &services.insurer).only_if(trip.map(|trip| trip.insured)),
        trip,
    );
    let hotel = saga.add(at("hotel", &services.hotel).after(flight), trip);
    let cabs = [
        at("slow-cabs", &services.slow_cabs),
        at("fast-cabs", &services.fast_cabs),
    ];
    let taxi = saga.add(first_of("taxi", cabs).after(hotel), trip);
    saga.returns((flight, insurance, hotel, taxi))
}

async fn services() -> Result<Services, Error> {
    let yes = |what: &'static str| {
        move |trip: &Trip, _: &[&Trip]| Answer::Yes(format!("{what} {}", trip.to))
    };
    let north_air = |trip: &Trip, _: &[&Trip]| match trip.to.as_str() {
        "Oslo" => Answer::Late("North Air to Oslo".to_owned(), Duration::from_secs(3_600)),
        to => Answer::Yes(format!("North Air to {to}")),
    };
    let hotel = |trip: &Trip, _: &[&Trip]| match trip.to.as_str() {
        "Timbuktu" => Answer::No("no room is free".to_owned()),
        to => Answer::Yes(format!("a room in {to}")),
    };
    let slow_cabs = |trip: &Trip, _: &[&Trip]| {
        Answer::Late(
            format!("a slow cab in {}", trip.to),
            Duration::from_millis(500),
        )
    };
    Ok(Services {
        north_air: Desk::open(north_air).await?,
        south_air: Desk::open(yes("South Air to")).await?,
        insurer: Desk::open(yes("a policy for")).await?,
        hotel: Desk::open(hotel).await?,
        fast_cabs: Desk::open(yes("a fast cab in")).await?,
        slow_cabs: Desk::open(slow_cabs).await?,
    })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let services = services().await?;
    let saga = trip(&services)?;
    print!("{}", diagram::text(saga.graph()));
    let folder = tempfile::tempdir()?;
    let store = SqliteStore::open(folder.path().join("sagas.db"))?;
    let coordinator = Coordinator::builder(store).register(&saga).build().await?;
    let trips = [
        ("Lisbon", false, "completed"),
        ("Oslo", true, "completed"),
        ("Timbuktu", true, "compensated"),
    ];
    for (to, insured, end) in trips {
        let trip = Trip {
            to: to.to_owned(),
            insured,
        };
        let run = coordinator.start(&saga, to, trip).await?;
        let outcome = run.outcome().await?;
        tell(&outcome.partial());
        assert_eq!(outcome.word(), end);
    }
    coordinator.shutdown().await;

    println!("\nin the services' own books:");
    let books = [
        ("North Air", &services.north_air, "Lisbon"),
        ("South Air", &services.south_air, "Oslo"),
        ("insurer", &services.insurer, "Oslo"),
        ("hotel", &services.hotel, "Lisbon, Oslo"),
        ("fast cabs", &services.fast_cabs, "Lisbon, Oslo"),
        ("slow cabs", &services.slow_cabs, ""),
    ];
    for (name, desk, expected) in books {
        let mut stand: Vec<String> = desk.standing().into_iter().map(|trip| trip.to).collect();
        stand.sort();
        println!("  {name:<10} {}", stand.join(", "));
        assert_eq!(stand.join(", "), expected);
    }
    Ok(())
}
