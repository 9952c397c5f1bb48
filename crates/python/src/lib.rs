//! The engine as the Python module `crane._core`: a few coarse calls.
//!
//! No byte of client traffic comes this way. Every call that may wait for a
//! thread or a disk gives the interpreter lock up meanwhile. `_core.pyi` beside
//! the package documents the same for Python.

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

create_exception!(
    _core,
    EngineError,
    PyException,
    "The engine cannot go on; the message is one line for the user."
);

fn raise(error: crane_engine::EngineError) -> PyErr {
    EngineError::new_err(error.to_string())
}

/// One replica's engine. Every method may be called from any thread.
#[pyclass(frozen, module = "crane._core")]
struct Engine {
    inner: crane_engine::Engine,
}

#[pymethods]
impl Engine {
    /// Open the log and create the segment.
    #[new]
    fn new(py: Python<'_>, config_json: &str) -> PyResult<Self> {
        let inner = py
            .detach(|| crane_engine::Engine::open(config_json))
            .map_err(raise)?;
        Ok(Self { inner })
    }

    /// Start the engine's threads; afterwards the program may be started.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.start()).map_err(raise)
    }

    /// The engine's state as JSON.
    fn status(&self, py: Python<'_>) -> String {
        py.detach(|| self.inner.status())
    }

    /// The program's threads as JSON.
    fn threads(&self, py: Python<'_>) -> String {
        py.detach(|| self.inner.threads())
    }

    /// Tell the engine the first process of the program's pid namespace.
    fn program_started(&self, init: u32) {
        self.inner.program_started(init);
    }

    /// A descriptor that is readable while `next_event` has something.
    fn event_fd(&self) -> RawFd {
        self.inner.event_fd().as_raw_fd()
    }

    /// The next event as JSON, `None` when there is none.
    fn next_event(&self) -> Option<String> {
        self.inner.next_event()
    }

    /// Send a signal to the program's main process on every replica, by way of
    /// the log.
    fn signal(&self, number: u32) -> PyResult<()> {
        self.inner.signal(number).map_err(raise)
    }

    /// Tell the engine that this machine has the virtual address.
    fn address_held(&self) {
        self.inner.address_held();
    }

    /// Let the program, which ended by its own fault, begin anew on every replica.
    fn restart(&self) {
        self.inner.restart();
    }

    /// Send bytes to the owner of another replica's engine.
    fn send_mail(&self, to: u8, data: &[u8]) -> PyResult<()> {
        self.inner.send_mail(to, data.to_vec()).map_err(raise)
    }

    /// The oldest mail of other replicas' owners, with the sender.
    fn next_mail(&self, py: Python<'_>) -> Option<(u8, Py<PyBytes>)> {
        let (from, bytes) = self.inner.next_mail()?;
        Some((from, PyBytes::new(py, &bytes).unbind()))
    }

    /// Ask the leader about the members, or to change them, in JSON; the event
    /// `answer` has the same number.
    fn ask(&self, number: u64, question: &str) {
        self.inner.ask(number, question);
    }

    /// Have the program stand still at the end of an epoch.
    fn park(&self) {
        self.inner.park();
    }

    /// Save the segment of the program, which stands still.
    fn save_segment(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.inner.save_segment(&path)).map_err(raise)
    }

    /// The files that the program has seen.
    fn seen_files(&self, py: Python<'_>) -> PyResult<Vec<Seen>> {
        let found = py.detach(|| self.inner.seen_files()).map_err(raise)?;
        Ok(seen(py, found))
    }

    /// Let the program go on; return whether it stood still until now.
    fn unpark(&self) -> bool {
        self.inner.unpark()
    }

    /// Tell that there is a checkpoint of everything up to an entry.
    fn checkpointed(&self, index: u64) {
        self.inner.checkpointed(index);
    }

    /// Give up the log up to an entry.
    fn cut(&self, index: u64) {
        self.inner.cut(index);
    }

    /// Tell the engine that the program has ended, with a text that says how.
    fn server_exited(&self, status: &str) {
        self.inner.server_exited(status);
    }

    /// Stop the threads and close the log.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.inner.stop());
    }
}

/// An entry of the interposer's table of files, see `crane.checkpoint.identities`.
type Seen = (u64, u64, i64, u64, u64, u64, Py<PyBytes>);

fn seen(py: Python<'_>, found: Vec<(crane_engine::SeenFile, Vec<u8>)>) -> Vec<Seen> {
    let entry = |(one, name): (crane_engine::SeenFile, Vec<u8>)| {
        let name = PyBytes::new(py, &name).unbind();
        let crane_engine::SeenFile {
            device,
            number,
            born,
            shown,
            written,
            ..
        } = one;
        (device, number, born, shown, written, one.name, name)
    };
    found.into_iter().map(entry).collect()
}

/// Feeds recorded epochs to a fresh program.
#[pyclass(frozen, module = "crane._core")]
struct Replayer {
    inner: crane_engine::Replayer,
}

#[pymethods]
impl Replayer {
    /// Create the segment and begin to feed it; then start the program.
    #[new]
    #[allow(clippy::too_many_arguments, reason = "they have names in Python")]
    #[pyo3(signature = (segment_path, source, quantum=100, trace=false, objects=false, hashes=None, preempt=true, park_after=None, witness=None))]
    fn new(
        py: Python<'_>,
        segment_path: PathBuf,
        source: PathBuf,
        quantum: u32,
        trace: bool,
        objects: bool,
        hashes: Option<PathBuf>,
        preempt: bool,
        park_after: Option<u64>,
        witness: Option<PathBuf>,
    ) -> PyResult<Self> {
        let replay = crane_engine::Replay {
            segment: segment_path,
            source,
            quantum,
            trace,
            objects,
            preempt,
            hashes,
            park_after,
            witness,
        };
        let inner = py
            .detach(|| crane_engine::Replayer::start(&replay))
            .map_err(raise)?;
        Ok(Self { inner })
    }

    /// Tell the first process of the program's pid namespace.
    fn program_started(&self, init: u32) {
        self.inner.program_started(init);
    }

    /// Save the segment of the program, which stands still.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.inner.save(&path)).map_err(raise)
    }

    /// The files that the program has seen.
    fn seen_files(&self, py: Python<'_>) -> PyResult<Vec<Seen>> {
        let found = py.detach(|| self.inner.seen_files()).map_err(raise)?;
        Ok(seen(py, found))
    }

    /// Go on with a program that is restored together with a saved segment.
    #[pyo3(signature = (saved, park_after=None))]
    fn resume(&self, py: Python<'_>, saved: PathBuf, park_after: Option<u64>) -> PyResult<()> {
        py.detach(|| self.inner.resume(&saved, park_after))
            .map_err(raise)
    }

    /// Wait until the program has done all epochs, stands still or has ended; `None` when that
    /// takes longer than `timeout` seconds.
    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<String>> {
        let timeout = Duration::try_from_secs_f64(timeout)
            .map_err(|e| PyValueError::new_err(format!("timeout: {e}")))?;
        py.detach(|| self.inner.wait(timeout)).map_err(raise)
    }

    /// Stop feeding.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.inner.stop());
    }
}

/// Write the committed epochs of a log that no engine is using to a file;
/// return their number.
#[pyfunction]
fn dump_log(py: Python<'_>, log_dir: PathBuf, out_path: PathBuf) -> PyResult<u64> {
    py.detach(|| crane_engine::dump_log(&log_dir, &out_path))
        .map_err(raise)
}

/// Make the log of a replica of a new cluster that begins with a checkpoint.
#[pyfunction]
fn begin_log(py: Python<'_>, config_json: &str) -> PyResult<()> {
    py.detach(|| crane_engine::begin_log(config_json))
        .map_err(raise)
}

/// Let connections through a virtual address go on at another replica; return the
/// descriptor that keeps back what this machine would say of them when the node dies.
#[pyfunction]
fn hold_back(address: &str, interface: &str) -> PyResult<RawFd> {
    let address = address.parse();
    let address = address.map_err(|_| PyValueError::new_err("not an IPv4 address"))?;
    crane_engine::hold_back(address, interface).map_err(raise)
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("EngineError", module.py().get_type::<EngineError>())?;
    module.add_class::<Engine>()?;
    module.add_class::<Replayer>()?;
    module.add_function(wrap_pyfunction!(begin_log, module)?)?;
    module.add_function(wrap_pyfunction!(hold_back, module)?)?;
    module.add_function(wrap_pyfunction!(dump_log, module)?)
}
