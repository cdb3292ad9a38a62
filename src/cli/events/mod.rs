//! `doorward events`: lists, shows, replays and purges the queued events of a running gateway.

pub(super) mod client;
mod wording;

use std::process::ExitCode;

use clap::ArgGroup;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use self::client::Client;
use self::client::Gateway;
use super::complain;
use super::count;
use super::runtime;
use super::say;
use super::say_json;
use crate::base::time::Format;
use crate::base::time::Moment;
use crate::store::MAX_PART;
use crate::store::State;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List deliveries of events, newest first.
    List(List),
    /// Show an event with its headers, its body, and how each of its deliveries fared.
    Show(Show),
    /// Have events delivered again: some that are named (where they are dead, or everywhere), or all dead ones that a
    /// filter means.
    Replay(Replay),
    /// Delete the dead and delivered events that a filter means; what is still to be delivered is never deleted.
    Purge(Many),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    filter: Filter,
    /// Most events to list.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print JSON: an array of objects.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The event, as it is listed.
    #[arg(value_name = "SOURCE/NUMBER", value_parser = Name::parse)]
    event: Name,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, clap::Args)]
struct Replay {
    /// Events, as they are listed.
    #[arg(value_name = "SOURCE/NUMBER", value_parser = Name::parse, group = "which",
        conflicts_with_all = OTHER_FILTERS, conflicts_with = "all")]
    events: Vec<Name>,
    #[command(flatten)]
    many: Many,
}

/// Many events, and what is done to them.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args(FILTERS).arg("all"))]
struct Many {
    #[command(flatten)]
    filter: Filter,
    /// All of them: dead ones, and for `purge` delivered ones too.
    #[arg(long, conflicts_with_all = FILTERS)]
    all: bool,
    /// Print JSON: an object with the number of `events`.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// The arguments of a [`Filter`].
const FILTERS: [&str; 7] = ["source", "destination", "state", "type", "id", "from", "until"];
/// Those that do not go with events that are named.
const OTHER_FILTERS: [&str; 6] = ["source", "state", "type", "id", "from", "until"];

/// Which events are meant; all that is said has to hold.
#[derive(Debug, clap::Args)]
struct Filter {
    /// Of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// To the destination of this name.
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// In this state: blocked, queued, retrying, delivered or dead.
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Of this type.
    #[arg(long = "type", id = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// With this id of the provider's.
    #[arg(long)]
    id: Option<String>,
    /// Received then or later: a time such as 2026-01-02T03:04:05Z, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Moment>,
    /// Received before then, written likewise.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Moment>,
}

/// What an event is called.
#[derive(Debug, Clone)]
struct Name {
    source: String,
    number: String,
}

impl Name {
    fn parse(text: &str) -> Result<Self, String> {
        let usable = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        match text.split_once('/') {
            Some((source, number)) if usable(source) && usable(number) => {
                Ok(Self { source: source.to_owned(), number: number.to_owned() })
            }
            _ => {
                Err("write SOURCE/NUMBER, such as github/1767323045678-0; `doorward events list` shows both".to_owned())
            }
        }
    }

    fn path(&self) -> String {
        format!("/api/v1/events/{}/{}", self.source, self.number)
    }
}

fn state(name: &str) -> Result<State, String> {
    State::named(name).ok_or_else(|| format!("write one of {}", State::ALL.map(State::name).join(", ")))
}

fn time(text: &str) -> Result<Moment, String> {
    if let Some(moment) = Format::Rfc3339.parse(text) {
        return Ok(moment);
    }
    let ago = humantime::parse_duration(text).map_err(|_neither| {
        "write a time such as 2026-01-02T03:04:05Z, or how long ago, such as 90s, 2h or 3days".to_owned()
    })?;
    Ok(Moment::now().before(ago))
}

impl Filter {
    /// The parameters of the API's query.
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let moment = |moment: Option<Moment>| moment.map(|moment| moment.rfc3339().to_string());
        [
            ("source", self.source.clone()),
            ("destination", self.destination.clone()),
            ("state", self.state.map(|state| state.name().to_owned())),
            ("type", self.kind.clone()),
            ("id", self.id.clone()),
            ("from", moment(self.from)),
            ("until", moment(self.until)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// The filter as the body of a request.
    fn members(&self) -> Value {
        self.pairs().into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
    }
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let done = runtime.block_on(async {
        match &arguments.command {
            Command::List(list) => self::list(list).await,
            Command::Show(show) => self::show(show).await,
            Command::Replay(replay) => self::replay(replay).await,
            Command::Purge(purge) => {
                let purged = for_all(&Client::new(&purge.gateway)?, "purge", &purge.filter).await?;
                report("purged", purged, purge.json);
                Ok(())
            }
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

async fn list(list: &List) -> Result<(), String> {
    let client = Client::new(&list.gateway)?;
    let mut events = Vec::new();
    let mut cursor: Option<String> = None;
    let more = loop {
        let remaining = list.limit.saturating_sub(u64::try_from(events.len()).unwrap_or(u64::MAX));
        let page_size = remaining.min(u64::try_from(MAX_PART).unwrap_or(u64::MAX));
        let mut query = list.filter.pairs();
        query.push(("limit", page_size.to_string()));
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        let mut page = client.get("/api/v1/events", &query).await?;
        if let Some(Value::Array(found)) = page.get_mut("events").map(Value::take) {
            events.extend(found);
        }
        cursor = next(&page);
        if cursor.is_none() || u64::try_from(events.len()).unwrap_or(u64::MAX) >= list.limit {
            break cursor.is_some();
        }
    };
    if list.json {
        say_json(&Value::Array(events));
        return Ok(());
    }
    if events.is_empty() {
        say("no events");
    } else {
        say(&wording::table(&events));
    }
    if more {
        complain(&format_args!("there are more; --limit says how many to list"));
    }
    Ok(())
}

async fn show(show: &Show) -> Result<(), String> {
    let event = Client::new(&show.gateway)?.get(&show.event.path(), &[]).await?;
    if show.json {
        say_json(&event);
    } else {
        say(&wording::event(&event));
    }
    Ok(())
}

async fn replay(Replay { events, many }: &Replay) -> Result<(), String> {
    let client = Client::new(&many.gateway)?;
    let mut replayed = 0;
    if events.is_empty() {
        replayed = for_all(&client, "replay", &many.filter).await?;
    }
    for name in events {
        let path = format!("{}/replay", name.path());
        let done = client.post(&path, &many.filter.members()).await;
        replayed += event_count(&done.map_err(|message| stopped(&message, replayed, "replay"))?);
    }
    report("replayed", replayed, many.json);
    Ok(())
}

/// Replays or purges all events that match a filter, page by page. Returns their number.
async fn for_all(client: &Client, verb: &str, filter: &Filter) -> Result<u64, String> {
    let filter = filter.members();
    let mut request = if filter == json!({}) { json!({ "all": true }) } else { filter };
    let mut events = 0;
    loop {
        let path = format!("/api/v1/events/{verb}");
        let done = client.post(&path, &request).await.map_err(|message| stopped(&message, events, verb))?;
        events += event_count(&done);
        match (next(&done), &mut request) {
            (Some(cursor), Value::Object(members)) => drop(members.insert("cursor".to_owned(), Value::from(cursor))),
            _ => return Ok(events),
        }
    }
}

/// The number of events in an answer.
fn event_count(done: &Value) -> u64 {
    done.get("events").and_then(Value::as_u64).unwrap_or_default()
}

fn next(page: &Value) -> Option<String> {
    page.get("next").and_then(Value::as_str).map(str::to_owned)
}

fn stopped(message: &str, events: u64, verb: &str) -> String {
    match events {
        0 => message.to_owned(),
        events => format!("{message}\nbefore that, the {verb} was done for {}", counted(events)),
    }
}

fn report(done: &str, events: u64, json: bool) {
    if json {
        say_json(&json!({ "events": events }));
    } else {
        say(&format_args!("{done} {}", counted(events)));
    }
}

fn counted(events: u64) -> String {
    count(usize::try_from(events).unwrap_or(usize::MAX), "event")
}
