//! Requests to append, memberships and metrics as JSON, with the keys of the protocol first and ours beside them: who does
//! not know ours passes over them. Indexes are one more than openraft's. Called by `client` and `server`.

use super::super::propose::BATCH_MAX;
use super::super::{LogEntry, LogId, Membership, Payload, Peer, StoredMembership, Types, Vote};
use super::{JSON_BYTES_MAX, command, from_wire, to_wire, vote_text};
use crate::engine::entry::Entry;
use crate::types::MemberId;
use openraft::ServerState;
use openraft::async_runtime::Instant as _;
use openraft::entry::RaftPayload;
use openraft::metrics::RaftMetrics;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Why JSON is no request, or a request no JSON.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no JSON, or keys are missing.
    #[error("{0}")]
    Syntax(#[from] serde_json::Error),
    /// An entry is none of ours.
    #[error(transparent)]
    Foreign(#[from] command::Foreign),
    /// Entries do not follow each other.
    #[error("entry {0} does not follow the one before")]
    NotConsecutive(u64),
    /// Entries are newer than their leader.
    #[error("entry {0} is of a later term than its leader")]
    OfLaterTerm(u64),
    /// A membership that cannot be.
    #[error("membership: {0}")]
    Membership(String),
    /// Nobody could be told what becomes of a command.
    #[error("a command has no ticket")]
    WithoutTicket,
    /// More commands than a member sends at once.
    #[error("{0} commands at once")]
    TooMany(usize),
    /// A payload that has no meaning here.
    #[error("entry {0} points to a snapshot, which nobody sends")]
    Pointer(u64),
}

#[derive(Deserialize)]
struct Request {
    term: u64,
    leader_id: u64,
    prev_log_index: u64,
    prev_log_term: u64,
    entries: Vec<EntryForm>,
    leader_commit: u64,
    leader_commit_term: Option<u64>,
}

#[derive(Deserialize)]
struct EntryForm {
    term: u64,
    index: u64,
    payload: PayloadForm,
}

#[derive(Deserialize)]
enum PayloadForm {
    Blank,
    Normal { data: Value },
    ConfigChange { membership: MembershipForm },
    SnapshotPointer {},
}

/// A membership: the voters, those of the next step while there is one, and where each member is.
#[derive(Serialize, Deserialize)]
pub struct MembershipForm {
    members: BTreeSet<u64>,
    members_after_consensus: Option<BTreeSet<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<BTreeMap<u64, NodeForm>>,
}

/// Where a member is.
#[derive(Serialize, Deserialize)]
pub struct NodeForm {
    #[serde(default)]
    name: String,
    /// The first of `peer_urls`.
    #[serde(default)]
    peer_url: String,
    /// Empty: where clients go is in the replicated table of members.
    #[serde(default)]
    client_url: String,
    peer_urls: Option<Vec<String>>,
}

/// A request to append, as read from JSON.
pub struct Append {
    /// The leader's.
    pub vote: Vote,
    /// The entry before those of the request.
    pub prev: Option<LogId>,
    /// What to append.
    pub entries: Vec<LogEntry>,
    /// Where the leader has committed, as an index here.
    pub commit_index: u64,
    /// And in which term that entry is, if it says so.
    pub commit_term: Option<u64>,
}

/// As many entries of a request as one call takes, and at least one of them if there are any.
pub struct Batch {
    /// The JSON.
    pub json: String,
    /// How many entries of the request it has.
    pub entries: usize,
}

/// The JSON of a request, or of its beginning.
pub fn write_append(request: &AppendEntriesRequest<Types>) -> Result<Batch, Error> {
    let (prev_term, prev_index) = to_wire(request.prev_log_id.as_ref());
    let (commit_term, commit_index) = to_wire(request.leader_commit.as_ref());
    let leader = &request.vote.leader_id;
    let mut json = format!(
        r#"{{"term":{},"leader_id":{},"prev_log_index":{prev_index},"prev_log_term":{prev_term},"entries":["#,
        leader.term, leader.voted_for
    );
    let mut entries = 0;
    for entry in &request.entries {
        let text = write_entry(entry)?;
        if entries > 0 && json.len() + text.len() > JSON_BYTES_MAX {
            break;
        }
        if entries > 0 {
            json.push(',');
        }
        json.push_str(&text);
        entries += 1;
    }
    json.push_str(&format!(r#"],"leader_commit":{commit_index},"leader_commit_term":{commit_term}}}"#));
    Ok(Batch { json, entries })
}

fn write_entry(entry: &LogEntry) -> Result<String, Error> {
    let (term, index) = to_wire(Some(&entry.log_id));
    let payload = match &entry.payload {
        Payload::Blank => r#""Blank""#.to_owned(),
        Payload::Normal(ours) => format!(r#"{{"Normal":{{"data":{}}}}}"#, command::write(ours)),
        Payload::Membership(membership) => {
            let form = write_membership(membership)?;
            json!({ "ConfigChange": { "membership": form } }).to_string()
        }
    };
    Ok(format!(r#"{{"term":{term},"index":{index},"payload":{payload}}}"#))
}

/// Reads a request. `table` says where members are if the request does not.
pub fn read_append(text: &str, table: &[(MemberId, Peer)]) -> Result<Append, Error> {
    let request: Request = serde_json::from_str(text)?;
    let prev = from_wire(request.prev_log_term, request.prev_log_index);
    let (mut last_term, mut last_index) = to_wire(prev.as_ref());
    let mut entries = Vec::with_capacity(request.entries.len());
    for form in request.entries {
        if Some(form.index) != last_index.checked_add(1) || form.term < last_term {
            return Err(Error::NotConsecutive(form.index));
        }
        if form.term > request.term {
            return Err(Error::OfLaterTerm(form.index));
        }
        (last_term, last_index) = (form.term, form.index);
        entries.push(read_entry(form, table)?);
    }
    Ok(Append {
        vote: Vote::new_committed(request.term, request.leader_id),
        prev,
        entries,
        commit_index: request.leader_commit,
        commit_term: request.leader_commit_term,
    })
}

fn read_entry(form: EntryForm, table: &[(MemberId, Peer)]) -> Result<LogEntry, Error> {
    let payload = match form.payload {
        PayloadForm::Blank => Payload::blank(),
        PayloadForm::Normal { data } => Payload::Normal(command::read(&data)?),
        PayloadForm::ConfigChange { membership } => Payload::Membership(read_membership(membership, table)?),
        PayloadForm::SnapshotPointer {} => return Err(Error::Pointer(form.index)),
    };
    let log_id = from_wire(form.term, form.index).ok_or(Error::NotConsecutive(form.index))?;
    Ok(LogEntry { log_id, payload })
}

/// Commands for the leader of a term.
#[derive(Deserialize)]
struct Proposal {
    term: u64,
    entries: Vec<Value>,
}

/// The JSON of commands for the leader of `term`. Keys are missing that entries of a leader must have.
pub fn write_proposal(term: u64, entries: &[Entry]) -> String {
    let entries: Vec<String> = entries.iter().map(command::write).collect();
    format!(r#"{{"term":{term},"entries":[{}]}}"#, entries.join(","))
}

/// Reads commands: the term, and each with the number of its ticket.
pub fn read_proposal(text: &str) -> Result<(u64, Vec<(u64, Entry)>), Error> {
    let Proposal { term, entries } = serde_json::from_str(text)?;
    if entries.len() > BATCH_MAX {
        return Err(Error::TooMany(entries.len()));
    }
    let read = |data: &Value| {
        let entry = command::read(data)?;
        let ticket = entry.ticket().ok_or(Error::WithoutTicket)?;
        Ok((ticket.number, entry))
    };
    Ok((term, entries.iter().map(read).collect::<Result<_, Error>>()?))
}

/// A leader gives way.
#[derive(Serialize, Deserialize)]
struct HandOver {
    /// Of the leader.
    term: u64,
    leader_id: u64,
    /// Who is to lead.
    to: u64,
    /// What that one must have.
    last_log_term: u64,
    last_log_index: u64,
}

/// The JSON of a hand-over; ASCII.
pub fn write_hand_over(request: &TransferLeaderRequest<Types>) -> String {
    let leader = &request.from_leader().leader_id;
    let (last_log_term, last_log_index) = to_wire(request.last_log_id());
    let to = *request.to_node_id();
    let form = HandOver { term: leader.term, leader_id: leader.voted_for, to, last_log_term, last_log_index };
    serde_json::to_string(&form).expect("plain data in memory")
}

/// Reads a hand-over.
pub fn read_hand_over(text: &str) -> Result<TransferLeaderRequest<Types>, Error> {
    let form: HandOver = serde_json::from_str(text)?;
    let leader = Vote::new_committed(form.term, form.leader_id);
    Ok(TransferLeaderRequest::new(leader, form.to, from_wire(form.last_log_term, form.last_log_index)))
}

/// The form of a membership; there are two sets of voters at most.
pub fn write_membership(membership: &Membership) -> Result<MembershipForm, Error> {
    let (members, after) = match membership.get_joint_config().as_slice() {
        [] => (BTreeSet::new(), None),
        [members] => (members.clone(), None),
        [members, after] => (members.clone(), Some(after.clone())),
        more => return Err(Error::Membership(format!("{} sets of voters", more.len()))),
    };
    let nodes = membership.nodes().map(|(id, peer)| (*id, NodeForm::new(peer))).collect();
    Ok(MembershipForm { members, members_after_consensus: after, nodes: Some(nodes) })
}

impl NodeForm {
    /// Where a member is.
    pub fn new(peer: &Peer) -> NodeForm {
        NodeForm {
            name: peer.name.clone(),
            peer_url: peer.urls.first().cloned().unwrap_or_default(),
            client_url: String::new(),
            peer_urls: Some(peer.urls.clone()),
        }
    }
}

/// The membership of a form. `table` says where members are if the form does not.
pub fn read_membership(form: MembershipForm, table: &[(MemberId, Peer)]) -> Result<Membership, Error> {
    let voters: BTreeSet<u64> =
        form.members.iter().chain(form.members_after_consensus.iter().flatten()).copied().collect();
    let nodes: BTreeMap<u64, Peer> = match form.nodes {
        Some(nodes) => nodes.into_iter().map(|(id, node)| (id, peer(node))).collect(),
        None => table.iter().filter(|(id, _)| voters.contains(id)).cloned().collect(),
    };
    let configs = std::iter::once(form.members).filter(|members| !members.is_empty());
    let configs = configs.chain(form.members_after_consensus).collect();
    Membership::new(configs, nodes).map_err(|e| Error::Membership(e.to_string()))
}

fn peer(node: NodeForm) -> Peer {
    Peer { name: node.name, urls: node.peer_urls.unwrap_or_else(|| vec![node.peer_url]) }
}

/// What a member knows of itself, for `GetMetrics`; beside the keys of the protocol, `openraft` has more of it, with
/// openraft's own indexes.
pub fn metrics(metrics: &RaftMetrics<Types>) -> Result<String, Error> {
    let index = |id: &Option<LogId>| to_wire(id.as_ref()).1;
    let state = match metrics.state {
        ServerState::Learner => "NonVoter",
        ServerState::Follower => "Follower",
        ServerState::Candidate => "Candidate",
        ServerState::Leader => "Leader",
        ServerState::Shutdown => "Shutdown",
    };
    let mut members = write_membership(metrics.membership_config.membership())?;
    if members.members.is_empty() {
        members.members.insert(metrics.id); // who knows of no cluster knows of itself
    }
    Ok(json!({
        "id": metrics.id,
        "state": state,
        "current_term": metrics.current_term,
        "last_log_index": metrics.last_log_index.map_or(0, |index| index + 1),
        "last_applied": index(&metrics.last_applied),
        "current_leader": metrics.current_leader,
        "membership_config": members,
        "openraft": openraft(metrics),
    })
    .to_string())
}

fn openraft(metrics: &RaftMetrics<Types>) -> Value {
    let id = |id: &Option<LogId>| id.map(|id| json!({ "term": id.leader_id.term, "index": id.index }));
    let ago = |at: &Option<openraft::metrics::SerdeInstant<openraft::alias::InstantOf<Types>>>| {
        at.as_ref().map(|at| at.elapsed().as_millis() as u64)
    };
    json!({
        "running_state": metrics.running_state.as_ref().map_or_else(ToString::to_string, |()| "running".into()),
        "vote": vote_text(&metrics.vote),
        "last_log_index": metrics.last_log_index,
        "last_applied": id(&metrics.last_applied),
        "local_committed": id(&metrics.local_committed),
        "cluster_committed": id(&metrics.cluster_committed),
        "snapshot": id(&metrics.snapshot),
        "purged": id(&metrics.purged),
        "membership_log_id": stored_at(&metrics.membership_config),
        "quorum_acked_ms_ago": ago(&metrics.last_quorum_acked),
        "heartbeat_ms_ago": metrics.heartbeat.as_ref().map(|all| {
            all.iter().map(|(node, at)| (node.to_string(), json!(ago(at)))).collect::<serde_json::Map<_, _>>()
        }),
        "replication": metrics.replication.as_ref().map(|all| {
            all.iter().map(|(node, at)| (node.to_string(), json!(id(at)))).collect::<serde_json::Map<_, _>>()
        }),
    })
}

fn stored_at(membership: &StoredMembership) -> Option<Value> {
    membership.log_id().as_ref().map(|id| json!({ "term": id.leader_id.term, "index": id.index }))
}

/// Of the metrics of another member, what tells whether it is in a cluster without `me`.
pub fn is_elsewhere(metrics: &str, me: MemberId) -> bool {
    #[derive(Deserialize)]
    struct Metrics {
        last_log_index: u64,
        membership_config: MembershipForm,
    }
    let Ok(metrics) = serde_json::from_str::<Metrics>(metrics) else { return false };
    let members = metrics.membership_config;
    let mut voters = members.members.iter().chain(members.members_after_consensus.iter().flatten());
    let is_known = voters.any(|id| *id == me) || members.nodes.is_some_and(|nodes| nodes.contains_key(&me));
    metrics.last_log_index != 0 && !is_known
}
