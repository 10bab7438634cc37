//! Gets what building and testing need: protoc, etcd, Chromium, node and Python
//! packages.
//! Each is looked for first and installed only when it is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::run::{is_installed, step};

/// Puts protoc and the well-known types into `target/protoc`, where
/// `.cargo/config.toml` points etcd-client's build script.
pub fn install_protoc(root: &Path) -> anyhow::Result<()> {
    let folder = root.join("target/protoc");
    let program = folder.join("bin/protoc");
    if program.is_file() {
        return Ok(());
    }
    let vendored = protoc_bin_vendored::protoc_bin_path().context("no protoc for this platform")?;
    let include = protoc_bin_vendored::include_path().context("no protobuf includes")?;
    copy_folder(&include, &folder.join("include"))?;
    std::fs::create_dir_all(folder.join("bin"))?;
    // Under another name first: an interrupted copy must not look finished.
    let partial = folder.join("bin/protoc.partial");
    std::fs::copy(&vendored, &partial)
        .with_context(|| format!("cannot copy protoc to {}", partial.display()))?;
    std::fs::rename(&partial, &program)?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// A Debian package that holds a program the tests run.
struct Package {
    program: &'static str,
    package: &'static str,
    variable: &'static str,
}

const PACKAGES: [Package; 3] = [
    Package { program: "etcd", package: "etcd-server", variable: "HEADWATER_ETCD" },
    Package { program: "chromium", package: "chromium", variable: "HEADWATER_CHROMIUM" },
    // Makes the bad links of the tests, where they may make some.
    Package { program: "ip", package: "iproute2", variable: "HEADWATER_IP" },
];

/// Installs etcd, Chromium, the node and Python packages, and builds the page.
pub fn install_for_tests(root: &Path) -> anyhow::Result<()> {
    let missing: Vec<&Package> = PACKAGES
        .iter()
        .filter(|entry| std::env::var_os(entry.variable).is_none() && !is_installed(entry.program))
        .collect();
    if !missing.is_empty() {
        install_packages(&missing)?;
    }
    require_node()?;
    npm_install(root, "services/e2e")?;
    python_install(root)?;
    build_page(root)
}

fn install_packages(missing: &[&Package]) -> anyhow::Result<()> {
    let names: Vec<&str> = missing.iter().map(|entry| entry.package).collect();
    if !is_installed("apt-get") {
        let how: Vec<String> = missing
            .iter()
            .map(|entry| format!("{} (or set {})", entry.program, entry.variable))
            .collect();
        bail!("the tests need {}; install them by hand on this system", how.join(", "));
    }
    step("apt-get update", apt_get().args(["update", "-q"]))?;
    step(
        "install what the tests run",
        apt_get().args(["install", "-q", "-y", "--no-install-recommends"]).args(names),
    )
}

fn apt_get() -> Command {
    let root_already = std::env::var("USER").is_ok_and(|user| user == "root")
        || std::fs::metadata("/proc/self").is_ok_and(|meta| {
            use std::os::unix::fs::MetadataExt;
            meta.uid() == 0
        });
    let mut command = if root_already || !is_installed("sudo") {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("apt-get");
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn require_node() -> anyhow::Result<()> {
    if is_installed("node") && is_installed("npm") {
        return Ok(());
    }
    bail!("Node.js 20 or newer with npm is needed for the page and the browser tests")
}

/// Installs a folder's node packages unless its lock file was installed already.
/// Not by `npm ci`: it refuses lock files without download addresses, and ours
/// have none, so that they hold for every mirror of the registry.
fn npm_install(root: &Path, folder: &str) -> anyhow::Result<()> {
    let folder = root.join(folder);
    let lock = folder.join("package-lock.json");
    let stamp = folder.join("node_modules/.headwater-lock");
    let wanted = std::fs::read(&lock).with_context(|| format!("no {}", lock.display()))?;
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-save", "--no-audit", "--no-fund"]).current_dir(&folder);
    step(
        &format!("npm install in {}", folder.strip_prefix(root).unwrap_or(&folder).display()),
        &mut npm,
    )?;
    std::fs::write(&stamp, wanted)?;
    Ok(())
}

/// Makes a virtual environment in `target/e2e-python` with the packages of
/// `services/e2e/requirements.txt`, unless those were installed already.
fn python_install(root: &Path) -> anyhow::Result<()> {
    let folder = root.join("target/e2e-python");
    let list = root.join("services/e2e/requirements.txt");
    let stamp = folder.join("headwater-requirements.txt");
    let wanted = std::fs::read(&list).with_context(|| format!("no {}", list.display()))?;
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if !is_installed("python3") || !has_venv() {
        let python = Package { program: "python3", package: "python3-venv", variable: "PATH" };
        install_packages(&[&python])?;
    }
    step(
        "make a Python environment",
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder),
    )?;
    let mut pip = Command::new(folder.join("bin/python3"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .arg("--only-binary=:all:")
        .arg("-r")
        .arg(&list);
    step("install Python packages", &mut pip)?;
    std::fs::write(&stamp, wanted)?;
    Ok(())
}

/// Debian packs the module that makes environments apart from Python.
fn has_venv() -> bool {
    let import = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    import.is_ok_and(|output| output.status.success())
}

/// Where the page's sources are, and what building it makes.
fn page_folders(root: &Path) -> (PathBuf, PathBuf) {
    let sources = root.join("services/gateway/web");
    let built = sources.join("dist");
    (sources, built)
}

/// Builds the page if a source is newer than the last build.
pub fn build_page(root: &Path) -> anyhow::Result<()> {
    require_node()?;
    npm_install(root, "services/gateway/web")?;
    let (sources, built) = page_folders(root);
    let index = built.join("index.html");
    let built_at = std::fs::metadata(&index).and_then(|meta| meta.modified()).ok();
    if built_at.is_some_and(|built_at| !any_newer(&sources, built_at)) {
        return Ok(());
    }
    step("build the page", Command::new("npm").args(["run", "build"]).current_dir(&sources))
}

fn any_newer(folder: &Path, than: std::time::SystemTime) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return true;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        if name == "node_modules" || name == "dist" {
            return false;
        }
        let path = entry.path();
        if path.is_dir() {
            return any_newer(&path, than);
        }
        entry.metadata().and_then(|meta| meta.modified()).map_or(true, |time| time > than)
    })
}
