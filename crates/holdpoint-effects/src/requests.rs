//! `curl` and `wget`: the request that a command line makes, and the files that it writes.
//!
//! Owns what their options mean. It must never judge a request itself: [`crate::http`] does.

use crate::data::Reader;
use crate::http::{Body, HttpRequest, http};
use crate::place::Act;
use crate::programs::{Argv, Call, Looks, option_values, unlisted};
use crate::shell::{Feed, Shell};
use crate::words::{Arg, UNKNOWN};
use crate::{Effects, NoteCode};

/// Adds what one call of `curl` or `wget` does.
pub(crate) fn run(shell: &mut Shell<'_>, call: &Call<'_>) {
    if call.program.reader == Some(Reader::Httpie) {
        let argv = call.options(None).part(call.args);
        return httpie(shell, call, &argv);
    }
    let curl = call.program.reader == Some(Reader::Curl);
    // `--next` begins another request with options of its own.
    for args in call.args.split(|arg| curl && (arg.text == "--next" || arg.text == "-:")) {
        let argv = call.options(None).part(args);
        unlisted(shell, call, &argv, Looks::Only);
        option_values(shell, call, &argv, call.options(None));
        if curl { self::curl(shell, call, &argv) } else { wget(shell, call, &argv) }
    }
}

/// What one request of `curl` asks for.
#[derive(Default)]
struct Asked {
    request: HttpRequest,
    urls: Vec<Arg>,
    bodies: Vec<Body>,
    written: Vec<Arg>,
    get: bool,
    upload: bool,
}

fn curl(shell: &mut Shell<'_>, call: &Call<'_>, argv: &Argv) {
    let mut asked = Asked { urls: argv.operands.clone(), ..Asked::default() };
    for (name, value) in &argv.options {
        let value = value.clone().unwrap_or_default();
        curl_option(shell, call, (name, value), &mut asked);
    }
    curl_files(shell, call, argv, &asked);
    let Asked { mut request, urls, bodies, get, upload, .. } = asked;
    if urls.is_empty() && argv.options.iter().any(|(_, value)| value.is_some()) {
        return;
    }
    request.body = if get { Body::None } else { joined(bodies) };
    if request.method.is_empty() {
        request.method = match (upload, &request.body) {
            (true, _) => "PUT",
            (false, Body::None) => "GET",
            (false, Body::Text(_) | Body::Unseen) => "POST",
        }
        .to_owned();
    }
    if upload {
        request.body = Body::Unseen;
    }
    send(shell, call, &request, &urls);
}

fn curl_option(
    shell: &mut Shell<'_>,
    call: &Call<'_>,
    (name, value): (&str, Arg),
    asked: &mut Asked,
) {
    let request = &mut asked.request;
    match name {
        "-X" | "--request" => request.method = value.text,
        "-H" | "--header" | "-b" | "--cookie" | "-w" | "--write-out" | "--proxy-header"
            if value.text.starts_with('@') || name == "-b" && !value.text.contains('=') =>
        {
            let file = Arg::known(value.text.trim_start_matches('@'));
            shell.touch(Act::Read, &file, &call.shown);
            if !matches!(name, "-w" | "--write-out") {
                request.headers.push(("Authorization".to_owned(), "unseen".to_owned()));
            }
        }
        "-H" | "--header" => header(&value, request),
        "-d" | "--data" | "--data-ascii" | "--data-binary" | "--json" => {
            asked.bodies.push(body(shell, call, &value));
        }
        "--data-urlencode" => asked.bodies.push(encoded(shell, call, &value)),
        "--url-query" => drop(encoded(shell, call, &value)),
        "--data-raw" | "--form-string" => asked.bodies.push(text(&value)),
        "-F" | "--form" => asked.bodies.push(form(shell, call, &value)),
        "-T" | "--upload-file" => {
            shell.touch(Act::Read, &value, &call.shown);
            asked.upload = true;
        }
        "-G" | "--get" => asked.get = true,
        "-I" | "--head" => request.method = "HEAD".to_owned(),
        "-L" | "--location" | "--location-trusted" => request.redirects = true,
        "-u" | "--user" | "--oauth2-bearer" | "--proxy-user" | "-U" => {
            request.headers.push(("Authorization".to_owned(), "given".to_owned()));
        }
        "-b" | "--cookie" => request.headers.push(("Cookie".to_owned(), value.text)),
        "--url" => asked.urls.push(value),
        "-o" | "--output" => asked.written.push(value),
        "-K" | "--config" | "--unix-socket" | "--abstract-unix-socket" | "--preproxy" => {
            shell.opaque(&format!("what is asked is not seen: {}", call.shown));
        }
        "--resolve" | "--connect-to" | "-x" | "--proxy" | "--proxy1.0" | "--socks4"
        | "--socks4a" | "--socks5" | "--socks5-hostname" | "--doh-url" => {
            shell.effects.note(NoteCode::HostNotAllowed, format!("{name} {}", value.shown()));
        }
        _ => {}
    }
}

/// The files that one request of `curl` writes.
fn curl_files(shell: &mut Shell<'_>, call: &Call<'_>, argv: &Argv, asked: &Asked) {
    let folder = argv.value("--output-dir");
    for file in &asked.written {
        let text = match folder.filter(|_| !file.text.starts_with('/')) {
            Some(folder) => format!("{}/{}", folder.text, file.text),
            None => file.text.clone(),
        };
        shell.touch(Act::Write(None), &Arg { text, ..file.clone() }, &call.shown);
    }
    if argv.has("-O") || argv.has("--remote-name") || argv.has("--remote-name-all") {
        let folder = folder.map_or(".", |folder| &folder.text);
        downloads(shell, call, &asked.urls, folder);
        if argv.has("-J") || argv.has("--remote-header-name") {
            // The server says what the file is called.
            let text = format!("{folder}/*");
            shell.touch(Act::Write(None), &Arg { text, glob: true, loose: false }, &call.shown);
        }
    }
}

fn wget(shell: &mut Shell<'_>, call: &Call<'_>, argv: &Argv) {
    let mut request = HttpRequest { redirects: true, ..HttpRequest::default() };
    let mut written = None;
    let mut bodies = Vec::new();
    for (name, value) in &argv.options {
        let value = value.clone().unwrap_or_default();
        match name.as_str() {
            "--method" => request.method = value.text,
            "--header" => header(&value, &mut request),
            "--post-data" | "--body-data" => bodies.push(text(&value)),
            "--post-file" | "--body-file" => {
                shell.touch(Act::Read, &value, &call.shown);
                bodies.push(Body::Unseen);
            }
            "--user" | "--password" | "--http-user" | "--http-password" => {
                request.headers.push(("Authorization".to_owned(), "given".to_owned()));
            }
            "-O" | "--output-document" => written = Some(value),
            "-P" | "--directory-prefix" => {
                let text = format!("{}/*", value.text);
                written = Some(Arg { text, glob: true, loose: false });
            }
            "-i" | "--input-file" | "-e" | "--execute" | "--use-askpass" | "--config" => {
                shell.opaque(&format!("what is asked is not seen: {}", call.shown));
            }
            _ => {}
        }
    }
    request.body = joined(bodies);
    if request.method.is_empty() {
        let posts = request.body != Body::None;
        request.method = if posts { "POST".to_owned() } else { "GET".to_owned() };
    }
    match written {
        _ if argv.has("--spider") => {}
        Some(file) => shell.touch(Act::Write(None), &file, &call.shown),
        None => downloads(shell, call, &argv.operands, "."),
    }
    send(shell, call, &request, &argv.operands);
}

/// `gh api graphql`: the query in a field goes to the analyser of GraphQL. False if it is another
/// call.
pub(crate) fn github_graphql(shell: &mut Shell<'_>, call: &Call<'_>) -> bool {
    let argv = call.options(None).part(call.args);
    let [api, path, ..] = argv.operands.as_slice() else { return false };
    if api.text != "api" || !matches!(path.text.rsplit('/').next(), Some("graphql")) {
        return false;
    }
    let field = |name: &str| matches!(name, "-f" | "-F" | "--field" | "--raw-field");
    let fields = argv.options.iter().filter(|(name, _)| field(name));
    let query = |value: &Arg| value.text.strip_prefix("query=").map(str::to_owned);
    let queries: Vec<String> =
        fields.filter_map(|(_, value)| value.as_ref().and_then(query)).collect();
    unlisted(shell, call, &argv, Looks::Only);
    match queries.as_slice() {
        [query] if !query.contains(UNKNOWN) && !query.starts_with('@') && !argv.has("--input") => {
            let mut effects = Effects::default();
            crate::graphql(query, "github://graphql", &shell.place.http, &mut effects);
            shell.take(effects);
        }
        _ => shell.opaque(&format!("what is asked is not seen: {}", call.shown)),
    }
    true
}

/// `http METHOD URL field=value Header:value`.
fn httpie(shell: &mut Shell<'_>, call: &Call<'_>, argv: &Argv) {
    option_values(shell, call, argv, call.options(None));
    let mut operands = argv.operands.iter().peekable();
    let is_method = |arg: &&Arg| !arg.text.is_empty() && arg.text.chars().all(char::is_alphabetic);
    let several = argv.operands.len() > 1;
    let method = operands.next_if(|arg| several && is_method(arg));
    let Some(url) = operands.next() else { return };
    let mut request = HttpRequest::default();
    let mut fields = Vec::new();
    for item in operands {
        match item.text.find([':', '=', '@']).map(|at| item.text.split_at(at)) {
            Some((name, value)) if value.starts_with(':') && !value.starts_with(":=") => {
                let value = value.trim_start_matches(':').to_owned();
                request.headers.push((name.to_owned(), value));
            }
            Some((_, value)) if value.starts_with("==") => {}
            Some((_, file)) if file.starts_with('@') || file.starts_with("=@") => {
                let file = Arg::known(file.trim_start_matches(['=', '@']));
                shell.touch(Act::Read, &file, &call.shown);
                fields.push(Body::Unseen);
            }
            _ => fields.push(text(item)),
        }
    }
    if argv.has("-a") || argv.has("--auth") {
        request.headers.push(("Authorization".to_owned(), "given".to_owned()));
    }
    if let Feed::Text(input) = call.feed {
        fields.push(text(input));
    }
    request.body = joined(fields);
    request.method = match (method, &request.body) {
        (Some(method), _) => method.text.to_uppercase(),
        (None, Body::None) => "GET".to_owned(),
        (None, Body::Text(_) | Body::Unseen) => "POST".to_owned(),
    };
    send(shell, call, &request, std::slice::from_ref(url));
}

/// Files that are named like the last part of each URL.
fn downloads(shell: &mut Shell<'_>, call: &Call<'_>, urls: &[Arg], folder: &str) {
    for url in urls {
        let path = url.text.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once("://").map_or(path, |(_, rest)| rest);
        let name = match path.rsplit_once('/') {
            Some((_, name)) if !name.is_empty() => name.to_owned(),
            _ => "index.html".to_owned(),
        };
        // A name that is not known stays in this folder all the same.
        let file = Arg { text: format!("{folder}/{name}"), ..url.clone() };
        shell.touch(Act::Write(None), &file, &call.shown);
    }
}

fn send(shell: &mut Shell<'_>, call: &Call<'_>, request: &HttpRequest, urls: &[Arg]) {
    for url in urls {
        let mut effects = Effects::default();
        let text = match url.text.contains("://") {
            true => url.text.clone(),
            false => format!("http://{}", url.text),
        };
        if let Some(file) = text.strip_prefix("file://") {
            let path = file.find('/').and_then(|at| file.get(at..)).unwrap_or("/");
            let act = if request.method == "PUT" { Act::Write(None) } else { Act::Read };
            shell.touch(act, &Arg { text: decoded(path), ..url.clone() }, &call.shown);
            continue;
        }
        let text = decoded(&text);
        let beyond_host = text.split('/').take(3).all(|part| !part.contains(UNKNOWN));
        match beyond_host || !text.contains(UNKNOWN) {
            true => {
                let url = text.replace(UNKNOWN, "*");
                http(&HttpRequest { url, ..request.clone() }, shell.place, &mut effects);
            }
            false => {
                effects.note(NoteCode::HostNotAllowed, "the host is not known");
                let evidence = call.shown.clone();
                effects.add_opaque("https://*", NoteCode::Unreadable, evidence);
            }
        }
        shell.take(effects);
    }
}

/// `text` with letters, digits and the like that are written as `%61` as what they are (RFC 3986,
/// section 2.3): the server reads them so.
fn decoded(text: &str) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        done.push_str(before);
        let code = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let plain = |c: &char| c.is_ascii_alphanumeric() || "-._~".contains(*c);
        match (code.map(char::from).filter(plain), after.get(2..)) {
            (Some(c), Some(after)) => {
                done.push(c);
                rest = after;
            }
            _ => {
                done.push('%');
                rest = after;
            }
        }
    }
    done.push_str(rest);
    done
}

/// The value of `--data-urlencode`: text, `name=text`, `@file` or `name@file`.
fn encoded(shell: &mut Shell<'_>, call: &Call<'_>, value: &Arg) -> Body {
    let file = match value.text.find(['=', '@']).map(|at| value.text.split_at(at)) {
        Some((_, file)) => file.strip_prefix('@'),
        None => None,
    };
    match file {
        Some(file) => body(shell, call, &Arg { text: format!("@{file}"), ..value.clone() }),
        None => text(value),
    }
}

fn header(value: &Arg, request: &mut HttpRequest) {
    if let Some((name, value)) = value.text.split_once(':') {
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn text(value: &Arg) -> Body {
    if value.is_unknown() { Body::Unseen } else { Body::Text(value.text.clone()) }
}

/// The value of `-d`: text, or `@file`.
fn body(shell: &mut Shell<'_>, call: &Call<'_>, value: &Arg) -> Body {
    match value.text.strip_prefix('@') {
        Some("-") => match call.feed {
            Feed::Text(input) => text(input),
            Feed::Inherited | Feed::Unknown | Feed::File(_) => Body::Unseen,
        },
        Some(file) => {
            let file = Arg { text: file.to_owned(), ..value.clone() };
            shell.touch(Act::Read, &file, &call.shown);
            Body::Unseen
        }
        None => text(value),
    }
}

fn form(shell: &mut Shell<'_>, call: &Call<'_>, value: &Arg) -> Body {
    match value.text.split_once("=@").or_else(|| value.text.split_once("=<")) {
        Some((_, file)) => {
            let file = file.split(';').next().unwrap_or(file);
            shell.touch(Act::Read, &Arg::known(file), &call.shown);
            Body::Unseen
        }
        None => text(value),
    }
}

fn joined(bodies: Vec<Body>) -> Body {
    let mut texts = Vec::new();
    for body in bodies {
        match body {
            Body::Text(text) => texts.push(text),
            Body::Unseen => return Body::Unseen,
            Body::None => {}
        }
    }
    if texts.is_empty() { Body::None } else { Body::Text(texts.join("&")) }
}
