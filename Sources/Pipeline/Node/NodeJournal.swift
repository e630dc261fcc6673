import CLinux
import Pipeline
import PipelineHost
import PipelineJournal
import PipelineRouting
import PipelineText

/// What a reload has put in force.
struct AppliedReload {
    let report: ApplyReport
    /// Who wrote the state file, by its own word.
    let actor: String?
}

/// The node's acts in its journal (R25). Without `state` there is none, and nothing happens.
extension RunningNode {
    package func record(_ entry: @autoclosure () -> JournalEntry) { journal?.append(entry()) }

    func record(started program: Program) {
        var entry = JournalEntry(.started, source: "node", what: "the node \(program.node.name) serves")
        entry.revision = revision
        entry.why = "\(configPath): \(routeCount) routes, \(listeners.openEndpoints.count) addresses"
        journal?.append(entry)
    }

    /// What the boot guard did with this start.
    func recordSetAside(_ hasSetAside: Bool) {
        guard hasSetAside, let desired, let aside = desired.setAside else { return }
        var entry = JournalEntry(.rolledBack, source: aside.source, what: "\(aside.name) is set aside at a start")
        entry.actor = aside.actor.isEmpty ? nil : aside.actor
        entry.revision = desired.last?.revision
        entry.why = "two starts in a row ended with it before they were ready; in force is \(desired.standing)"
        journal?.append(entry)
    }

    /// - Parameters:
    ///   - by: the trigger: `SIGHUP`, `admin`.
    ///   - peer: who asked for it.
    func record(reloadBy by: String, _ peer: JournalEntry.Peer?, _ options: ReloadOptions, _ applied: AppliedReload) {
        let begun = canary.map { ": a canary of \($0.settings.text)" } ?? ""
        var entry = JournalEntry(.applied, source: "config", what: "reload by \(by)\(options.text)\(begun)")
        entry.actor = applied.actor ?? by
        entry.peer = peer
        entry.revision = revision
        entry.why = "\(RunningNode.counts(applied.report)); generation \(fleet.snapshots.newest)"
        journal?.append(entry)
        journal?.keep(program.node.journalLimits)
    }

    func record(
        reloadBy by: String, _ peer: JournalEntry.Peer?, _ options: ReloadOptions, refused refusal: ReloadRefusal
    ) {
        var entry = JournalEntry(.rejected, source: "config", what: "reload by \(by)\(options.text)")
        entry.actor = by
        entry.peer = peer
        entry.revision = revision
        entry.why = ([refusal.message] + refusal.details.prefix(1)).joined(separator: ": ")
        journal?.append(entry)
    }

    /// What somebody did to the node by a signal.
    func record(signal: String, from peer: JournalEntry.Peer?, _ what: String) {
        var entry = JournalEntry(.admin, source: "signal", what: what)
        entry.actor = signal
        entry.peer = peer
        journal?.append(entry)
    }
}

extension JournalEntry.Peer {
    /// With the name that the process has now: it is worth no more than that, since a process may call itself anything.
    package init(user: UInt32, process: Int32) {
        let name = process > 0 ? Files.lines("/proc/\(process)/comm").first.map(String.init) : nil
        self.init(user: user, process: process, command: name)
    }
}

extension NodeSettings {
    var journalLimits: JournalLimits { JournalLimits(fileBytes: journalFileBytes, files: journalFiles) }
}
