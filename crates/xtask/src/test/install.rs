//! Installing what the suites need on a bare Debian machine: packages and cargo tools.

use std::process::Command;
use std::sync::Mutex;

/// Held while packages are installed, and says whether the index was updated in this run.
static APT: Mutex<bool> = Mutex::new(false);

/// Whether a program can be found and started.
pub fn present(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", "command -v \"$0\" >/dev/null 2>&1", program])
        .status()
        .is_ok_and(|status| status.success())
}

/// Installs a Debian package unless `program` is there.
pub fn package(program: &str, package: &str) -> Result<(), String> {
    if present(program) {
        return Ok(());
    }
    let mut updated = APT.lock().map_err(|_| "poisoned")?;
    println!("installing {package}");
    if !*updated {
        apt(&["update", "-qq"])?;
        *updated = true;
    }
    apt(&["install", "-y", "-qq", "--no-install-recommends", package])?;
    if present(program) { Ok(()) } else { Err(format!("{package} brought no {program}")) }
}

fn apt(args: &[&str]) -> Result<(), String> {
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Packages must not start services: every test starts its own servers.
        .env("RUNLEVEL", "1")
        .status()
        .map_err(|error| format!("apt-get: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("apt-get {} failed", args.join(" "))) }
}

/// Whether Python can create virtual environments, which Debian packages apart.
pub fn python_venv() -> Result<(), String> {
    package("python3", "python3")?;
    let works = Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .status()
        .is_ok_and(|status| status.success());
    if works {
        return Ok(());
    }
    println!("installing python3-venv");
    apt(&["update", "-qq"])?;
    apt(&["install", "-y", "-qq", "--no-install-recommends", "python3-venv"])
}

/// Installs a cargo subcommand unless it is there.
pub fn cargo_tool(name: &str) -> Result<(), String> {
    let works = Command::new("cargo")
        .args([name.trim_start_matches("cargo-"), "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    if works {
        return Ok(());
    }
    println!("installing {name}");
    let status = Command::new("cargo")
        .args(["install", "--quiet", "--locked", name])
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("cargo install {name} failed")) }
}
