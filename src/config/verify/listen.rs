//! Listeners, and TLS on them: which URLs may stand together, and what they need. Order and words are etcd's.

use super::{Error, Result, invalid};
use crate::config::draft::Draft;
use crate::config::url::{EndpointUrl, ListenUrl, Place};
use crate::config::value::ValueError;
use crate::config::{Listen, Note, Tls, TlsFiles, TlsRules};

/// Sockets, connections and TLS.
pub(super) fn listen(draft: &Draft, notes: &mut Vec<Note>) -> Result<Listen> {
    let urls = |urls: &[EndpointUrl]| -> Result<Vec<ListenUrl>> {
        urls.iter().cloned().map(|url| ListenUrl::new(url).map_err(Error::Invalid)).collect()
    };
    let mut listen = Listen {
        peer: urls(&draft.listen_peer_urls)?,
        client: urls(&draft.listen_client_urls)?,
        http: urls(&draft.listen_client_http_urls)?,
        metrics: urls(&draft.listen_metrics_urls)?,
        sockets: draft.sockets,
        tls: draft.tls.clone(),
        streams_max: draft.streams_max,
        keepalive: draft.keepalive.clone(),
        json_gateway: draft.json_gateway,
        origins: draft.cors.clone(),
        hosts: words(&draft.host_whitelist),
        pprof: draft.pprof,
    };
    if listen.client.is_empty() || listen.peer.is_empty() {
        return invalid("--listen-client-urls and --listen-peer-urls must not be empty");
    }
    let rules = TlsRules::parse(&draft.tls_min_version, &draft.tls_max_version, &draft.cipher_suites);
    listen.tls.rules = rules.map_err(failed)?;
    if listen.tls.rules.has_left_out {
        notes.push(Note::Unwise {
            flag: "cipher-suites",
            why: "some of them are weak and not supported; they are left out",
        });
    }
    check_peer(&listen, notes)?;
    check_client(&listen, notes)?;
    Ok(listen)
}

/// The parts between commas. None at all are like `*`.
fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn failed(error: ValueError) -> Error {
    Error::Invalid(error.0)
}

fn check_peer(listen: &Listen, notes: &mut Vec<Note>) -> Result<()> {
    let files = &listen.tls.peer;
    check_auto(&listen.tls, files)?;
    for url in &listen.peer {
        note_plain(url, files, true, notes);
        if url.is_secure() {
            if files.is_empty() && !files.auto {
                return invalid(format!(
                    "cannot listen on TLS for {}: KeyFile and CertFile are not presented",
                    place(url)
                ));
            }
            check_files(files)?;
        }
    }
    Ok(())
}

fn check_client(listen: &Listen, notes: &mut Vec<Note>) -> Result<()> {
    let files = &listen.tls.client;
    check_auto(&listen.tls, files)?;
    for url in listen.client.iter().chain(&listen.http) {
        note_plain(url, files, false, notes);
        if url.is_secure() && files.is_empty() && !files.auto {
            return invalid(format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
            ));
        }
    }
    for url in &listen.http {
        if listen.client.iter().any(|other| other.place() == url.place()) {
            return invalid(format!(
                "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
            ));
        }
    }
    if listen.metrics.iter().any(ListenUrl::is_secure) && files.is_empty() && !files.auto {
        return invalid(
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        );
    }
    let with_http = if listen.http.is_empty() { &listen.client } else { &listen.http };
    if with_http.iter().any(ListenUrl::is_secure) {
        listen.tls.rules.check_http2().map_err(failed)?;
    }
    if listen.client.iter().chain(&listen.http).chain(&listen.metrics).any(ListenUrl::is_secure) {
        check_files(files)?;
    }
    Ok(())
}

fn check_auto(tls: &Tls, files: &TlsFiles) -> Result<()> {
    if files.auto && files.is_empty() && tls.self_signed_years == 0 {
        return invalid("selfSignedCertValidity is invalid,it should be greater than 0");
    }
    Ok(())
}

fn check_files(files: &TlsFiles) -> Result<()> {
    let TlsFiles { cert, key, client_cert, client_key, allowed_names, allowed_hosts, .. } = files;
    if !files.is_empty() && (cert.is_empty() || key.is_empty()) {
        return invalid(format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]"));
    }
    if client_cert.is_empty() != client_key.is_empty() {
        return invalid(format!(
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: {client_key}, cert: \
             {client_cert}]"
        ));
    }
    if !allowed_names.is_empty() && !allowed_hosts.is_empty() {
        return invalid(format!(
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns={}, hostnames={})",
            quoted(allowed_names),
            quoted(allowed_hosts)
        ));
    }
    Ok(())
}

/// As Go prints a list of strings with `%q`.
fn quoted(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}

fn note_plain(url: &ListenUrl, files: &TlsFiles, peer: bool, notes: &mut Vec<Note>) {
    if url.is_secure() {
        return;
    }
    let mut note = |what| notes.push(Note::PlainDespite { what, peer, url: url.to_string() });
    if !files.is_empty() {
        note("key and cert files are present; ignoring key and cert files");
    }
    if files.client_cert_auth {
        note(if peer {
            "--peer-client-cert-auth is enabled; ignoring client cert auth for this URL"
        } else {
            "--client-cert-auth is enabled; ignoring client cert auth for this URL"
        });
    }
}

fn place(url: &ListenUrl) -> String {
    match url.place() {
        Place::Tcp(address) => address.to_string(),
        Place::Unix(path) => path.display().to_string(),
    }
}
