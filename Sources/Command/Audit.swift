import ArgumentParser
import CLinux
import PipelineHost
import PipelineJournal
import PipelineLedger
import PipelineNode

struct Audit: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The journal of a node: what was changed, by whom and why; and whether it is whole.",
        discussion: """
            Reads the files of a node, running or not. Outcomes: \(outcomes). Times are UTC: 2026-11-25T03:00, \
            2026-11-25, or how long ago: 30m, 24h, 7d. Combined filters must all match.

            --verify reads all of it: each line has its own hash and that of the line before it, each file that of \
            the file before it. It prints the hash of the last line: keep it elsewhere, and ask with --from whether \
            that line is still there, with nothing changed behind it. Exit code 1: it is not whole.

            EXAMPLES
              pipelined audit /etc/pipelined/edge.pipeline --since 24h
              pipelined audit /var/lib/pipelined --outcome rejected --actor 1001
              pipelined audit /var/lib/pipelined -f --json | jq .what
              pipelined audit /var/lib/pipelined --verify
              pipelined audit /var/lib/pipelined --verify --from 5f0d…
            """)

    private static let outcomes = JournalEntry.Outcome.allCases.map(\.rawValue).joined(separator: ", ")

    @Argument(
        help: ArgumentHelp(
            "The config that names the data directory, or that directory.", valueName: "config-or-directory"),
        completion: .file())
    var place: String

    @Option(help: ArgumentHelp("Only from then on.", valueName: "time"))
    var since: String?
    @Option(help: ArgumentHelp("Only before then.", valueName: "time"))
    var until: String?
    @Option(help: ArgumentHelp("Only this actor, or the user with this number.", valueName: "name"))
    var actor: String?
    @Option(help: ArgumentHelp("Only from this source: config, admin, signal, node and the like.", valueName: "name"))
    var source: String?
    @Option(help: ArgumentHelp("Only with this outcome.", valueName: "name"))
    var outcome: JournalEntry.Outcome?
    @Option(help: ArgumentHelp("Only with this text in it.", valueName: "text"))
    var contains: String?
    @Flag(name: [.customShort("f"), .long], help: "Go on with lines as they come.")
    var follow = false
    @Flag(help: "The lines as they are in the files, one JSON object each; with --verify one document.")
    var json = false
    @Flag(help: "Check the whole journal, and print the hash of its last line.")
    var verify = false
    @Option(help: ArgumentHelp("With --verify: the hash of a line that has to be there.", valueName: "hash"))
    var from: String?

    func validate() throws {
        for time in [since, until].compactMap({ $0 }) where LedgerTime.parse(time, now: 0) == nil {
            throw ValidationError("'\(time)' is not a time; write 2026-11-25T03:00, 2026-11-25, 24h, 7d or now.")
        }
        let isFiltered = follow || since != nil || until != nil || actor != nil || source != nil || outcome != nil
        if verify, isFiltered || contains != nil {
            throw ValidationError("--verify checks all lines: it goes with --from and --json alone.")
        }
        if from != nil, !verify { throw ValidationError("--from goes with --verify; for a time use --since.") }
        if let from, JournalHash(from) == nil {
            throw ValidationError("'\(from)' is not a hash: write the 64 digits that --verify has printed.")
        }
    }

    func run() throws {
        do throws(JournalFault) {
            let folder = try folder()
            guard verify else { return try show(JournalCursor(folder)) }
            let result = try JournalVerification(folder, from: from.flatMap { JournalHash($0) })
            if result.isUnlocked {
                Output.error("warning: the writer could not be kept away: its last lines may be missing")
            }
            if json { Output.write(result.json) } else { Output.text(result.text) }
            if !result.isWhole { throw JournalFault.isBroken }
        } catch {
            if error != .isBroken { Output.error("error: \(error)") }
            throw ExitCode.wrongInput
        }
    }

    private func folder() throws(JournalFault) -> String {
        var kind: Int64 = 0
        // Not a directory: a config.
        let file = cl_open_file(place, &kind)
        guard file >= 0 else { return place }
        _ = cl_close(file)
        let settings: String?
        do throws(FileError) {
            let program = try ConfigLoader.compileAlone(place, filters: PipelinedCommand.filters).program
            guard let program else { throw FileError(place, "it has errors", remedy: "run `pipelined check \(place)`") }
            settings = program.node.stateDirectory
        } catch {
            throw JournalFault("\(error)")
        }
        guard let settings else {
            throw JournalFault("\(place) names no data directory: write `state /var/lib/pipelined` in its `node` block")
        }
        return settings
    }

    private var filter: AuditFilter {
        let now = Int64(clamping: cl_wall_clock() / 1_000_000_000)
        let text = { (time: String) in LedgerTime.parse(time, now: now).map { LedgerTime.text($0) } }
        var filter = AuditFilter()
        (filter.since, filter.until) = (since.flatMap(text), until.flatMap(text))
        (filter.actor, filter.source, filter.outcome, filter.contains) = (actor, source, outcome, contains)
        return filter
    }

    private func show(_ cursor: JournalCursor) throws(JournalFault) {
        let filter = filter
        var table = AuditText()
        while true {
            try cursor.read { item in
                switch item {
                case .line(let line, let bytes):
                    guard filter.matches(line) else { return }
                    if json { Output.write(bytes + [0x0A]) } else { Output.text(table.add(line)) }
                case .flaw(let file, let line, let flaw):
                    Output.error("warning: \(file), line \(line): \(flaw): run it with --verify")
                case .skipped(let files):
                    Output.error("warning: \(files) files were removed before they were read")
                }
            }
            if !json { Output.text(table.take()) }
            guard follow else { return }
            try cursor.wait()
        }
    }
}

extension JournalEntry.Outcome: ExpressibleByArgument {}

extension JournalFault {
    /// What it says was printed.
    fileprivate static let isBroken = JournalFault("the journal is not whole")
}
