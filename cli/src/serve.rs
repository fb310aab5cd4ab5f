//! `serve`: play the service on a socket.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agentwire::server::Script;
use agentwire::server::serve::{Report, Server, Tls};

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::{self, Look};
use crate::{input, runtime};

/// Play the service: answer runs as a script says, or as the built-in assistant does.
///
/// The first line on stdout is the base URL, which holds the address. Ctrl-C ends it; runs that are
/// open then have a second to end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agentwire serve --listen 127.0.0.1:8443 --cert-out /tmp/ca.pem &
  AGENTWIRE_TOKEN=any agentwire chat --endpoint https://127.0.0.1:8443 \\
      --tls-ca /tmp/ca.pem \"hello\"")]
pub(crate) struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// What to answer, TOML or JSON (docs/SCRIPTS.md)
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,

    /// Certificate chain, PEM, instead of one made at start
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Write the root of the certificate made at start to this file, for `chat --tls-ca`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tls_cert", "cleartext"])]
    cert_out: Option<PathBuf>,

    /// No TLS
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    cleartext: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let script = match &args.script {
        Some(path) => read_script(path)?,
        None => Script::assistant(),
    };
    let builder = Server::builder().addr(args.listen).script(script).tls(tls(args));
    runtime::block_on(async {
        let mut interrupt = Interrupt::install()?;
        let server = builder.bind().await?;
        if let (Some(path), Some(pem)) = (&args.cert_out, server.certificate_pem()) {
            std::fs::write(path, pem).map_err(|error| {
                Failure::usage(format!("cannot write {}: {error}", path.display()))
            })?;
        }
        announce(&server.url())?;
        interrupt.wait().await;
        Look::detect().remark(&summary(&server.shutdown().await));
        Ok(())
    })
}

fn tls(args: &Args) -> Tls {
    match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            Tls::Files { certificate: certificate.clone(), key: key.clone() }
        }
        _ if args.cleartext => Tls::Off,
        _ => Tls::SelfSigned,
    }
}

/// A script; the ending says which form it has.
fn read_script(path: &Path) -> Result<Script, Failure> {
    let text = input::Source::File(path.to_owned()).text()?;
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let script = if is_json { Script::from_json(&text) } else { Script::from_toml(&text) };
    script.map_err(|error| {
        Failure::usage(format!("{} is not a script: {}", path.display(), error.message()))
    })
}

/// The first line: programs that started us wait for it.
fn announce(url: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{url}").and_then(|()| stdout.flush()).map_err(output::failed)
}

fn summary(report: &Report) -> String {
    let mut text = format!("{} requests served", report.requests);
    if report.violation_count > 0 {
        text.push_str(&format!(", {} breaches of the protocol seen", report.violation_count));
    }
    text
}
