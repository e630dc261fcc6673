import CLinux
import Pipeline
import PipelineThreads
import Synchronization

/// Outlets that were opened for new settings, and that lines do not go to yet. Closed with this, unless they are used.
package final class StagedLogs {
    let settings: LogSettings
    /// Nil: as before.
    fileprivate var out: LogOutlet?
    fileprivate var error: LogOutlet?

    fileprivate init(_ settings: LogSettings, _ out: LogOutlet?, _ error: LogOutlet?) {
        (self.settings, self.out, self.error) = (settings, out, error)
    }
}

/// Where lines go, as the control thread decides it.
extension LogWriter {
    /// Opens what the settings name and nothing writes to yet.
    package func stage(_ new: LogSettings) throws(LogFileError) -> StagedLogs {
        StagedLogs(
            new, try outlet(new.connections, unless: settings.connections, standard.out),
            try outlet(new.events, unless: settings.events, standard.error))
    }

    private func outlet(
        _ new: LogDestination, unless old: LogDestination, _ standard: LogOutlet
    ) throws(LogFileError) -> LogOutlet? {
        guard new != old else { return nil }
        switch new {
        case .standard: return standard
        case .syslog(let settings): return .syslog(settings)
        case .file(let path):
            let (made, error) = LogOutlet.file(path)
            guard let made else { throw LogFileError(path: path, error: error) }
            return made
        }
    }

    /// From here on lines of connections go there.
    package func moveConnections(_ staged: StagedLogs) {
        settings.connections = staged.settings.connections
        guard let outlet = staged.out else { return }
        staged.out = nil
        orders.withLock { $0.out = outlet }
        loop.wake()
    }

    /// The same with events.
    package func moveEvents(_ staged: StagedLogs) {
        settings.events = staged.settings.events
        guard let outlet = staged.error else { return }
        staged.error = nil
        orders.withLock { $0.error = outlet }
        loop.wake()
    }

    /// Opens log files again, since somebody has renamed them. False: there is none.
    package func reopen() -> Bool {
        guard settings.hasFile else { return false }
        orders.withLock { $0.reopens = true }
        loop.wake()
        return true
    }
}
