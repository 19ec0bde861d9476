//! `llm-foundry serve`: a model behind OpenAI's HTTP interface.

use crate::answer::Answerer;
use crate::cli::{MachineArgs, ServeArgs};
use crate::console;
use crate::failure::{Failure, Outcome};
use crate::serve::{ServeOptions, serve};
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;

/// Binds, loads, serves until a signal ends the process.
pub(crate) fn run(args: &ServeArgs, machine: &MachineArgs) -> Outcome {
    let address = address(args)?;
    // First of all: a port that is taken is cheap to notice.
    let listener = TcpListener::bind(address).map_err(|error| {
        Failure::Input(format!("cannot listen on {address}: {error}\n  choose another --host or --port"))
    })?;
    let mut answerer = Answerer::load(&args.model, machine, args.max_running)?;
    let address = listener.local_addr().map_err(Failure::run)?;
    let options = ServeOptions {
        model_names: names(args),
        api_key: args.api_key.clone(),
        hosts: hosts(args, address),
        most_open: args.max_open,
        body_bytes: args.max_body,
    };
    let name = options.model_names[0].clone();
    console::say(machine.quiet, format!("{name} at http://{address}/v1 (Ctrl-C ends it)"));
    serve(&mut answerer, listener, options).map_err(Failure::run)
}

/// What programs of this machine call it.
fn hosts(args: &ServeArgs, address: SocketAddr) -> Vec<String> {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
    hosts.extend([ip, args.host.clone()]);
    hosts
}

/// The model's own name, the last part of it, and what `--name` adds.
fn names(args: &ServeArgs) -> Vec<String> {
    let own = args.model.model.clone();
    let last = Path::new(&own).file_name().map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = args.name.clone();
    names.extend([Some(own), last].into_iter().flatten());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn address(args: &ServeArgs) -> Outcome<SocketAddr> {
    let found = (args.host.as_str(), args.port).to_socket_addrs().ok().and_then(|mut found| found.next());
    let Some(address) = found else {
        return Err(Failure::Input(format!(
            "--host {}: no such address; 127.0.0.1 is this machine alone, 0.0.0.0 every network it is in",
            args.host
        )));
    };
    if !address.ip().is_loopback() && args.api_key.is_none() {
        return Err(Failure::Input(format!(
            "--host {} lets other machines in, and there is no key\n  give one with --api-key or FOUNDRY_API_KEY, or \
             listen on 127.0.0.1",
            args.host
        )));
    }
    Ok(address)
}
