import ArgumentParser
import CLinux
import FilterEgressAccounting
import Glibc
import Pipeline
import PipelineHost
import PipelineInspect
import PipelineLedger
import PipelineNode
import PipelineThreads

struct EgressReport: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Recorded traffic: who sent how much, where and when.",
        discussion: """
            Reads the ledger of a node, running or not. OUT is from instances, IN is to them. Times are UTC: \
            2026-11-25T03:00, 2026-11-25, or how long ago: 30m, 24h, 7d. Where minutes or hours have expired, the \
            range is widened to the hours or days that remain, and the first line says so. Combined filters must all \
            match. DESTINATIONS are distinct pairs of an address and a port.

            EXAMPLES
              pipelined egress report --config egress.pipeline
              pipelined egress report --by destination --from 1h --top 10
              pipelined egress report --by env --from 2026-11-01 --to 2026-12-01 --csv
              pipelined egress report --by instance --port 25 --sort connections
              pipelined egress report --by instance --sort destinations
              pipelined egress report --by instance,destination --from 2026-11-24T22:00 --to 2026-11-25T06:00
              pipelined egress report --by port --from 24h --plot day.svg
            """)

    @Option(help: ArgumentHelp("The ledger file.", valueName: "path"), completion: .file())
    var ledger: String?
    @Option(help: ArgumentHelp("The config that names the ledger.", valueName: "config"), completion: .file())
    var config: String?
    @Option(
        help: ArgumentHelp(
            "What to aggregate by: org, app, env, instance, destination or port; or two of them, as instance,port.",
            valueName: "what"))
    var by = ReportGroups([.env])
    @Option(help: "What to sort by: bytes, connections, or destinations (which are counted only then).")
    var sort = ReportQuestion.Order.bytes
    @Option(help: ArgumentHelp("The start of the range.", valueName: "time"))
    var from = "24h"
    @Option(help: ArgumentHelp("The end of the range.", valueName: "time"))
    var to = "now"
    @Option(help: ArgumentHelp("The most rows to show.", valueName: "rows"))
    var top = 20
    @OptionGroup var only: FlowFilter
    @Option(help: ArgumentHelp("Only this app; its id alone is enough if it is unique.", valueName: "org/app"))
    var app: String?
    @Option(
        name: .customLong("protocol"),
        help: ArgumentHelp("Only this protocol: tcp, udp, icmp, icmpv6 or a number.", valueName: "name"))
    var proto: ReportProtocol?
    @Flag(help: "One JSON document, for programs.")
    var json = false
    @Flag(help: "Comma-separated values with a header line.")
    var csv = false
    @Option(
        help: ArgumentHelp("Also plot volume over time, of the first eight groups.", valueName: "file.svg"),
        completion: .file())
    var plot: String?

    func validate() throws {
        guard !(json && csv) else {
            throw ValidationError("--json and --csv can't be used together: choose one.")
        }
        guard ledger == nil || config == nil else {
            throw ValidationError("--ledger and --config can't be used together: choose one.")
        }
        guard (1...1_000_000).contains(top) else { throw ValidationError("--top takes 1 to 1000000.") }
        for time in [from, to] where LedgerTime.parse(time, now: 0) == nil {
            throw ValidationError("'\(time)' is not a time; write 2026-11-25T03:00, 2026-11-25, 24h, 7d or now.")
        }
    }

    func run() throws {
        let now = Int64(cl_wall_clock() / 1_000_000_000)
        guard let from = LedgerTime.parse(from, now: now), let to = LedgerTime.parse(to, now: now), from < to else {
            Output.error("error: the range ends before it begins")
            throw ExitCode(2)
        }
        do throws(LedgerProblem) {
            let reader = try LedgerReader(try path())
            let question = question(from, to, now)
            let text = EgressReportText(try reader.report(question))
            Output.text(json ? text.json : csv ? text.csv : text.table)
            guard let plot else { return }
            let svg = EgressPlot(try reader.series(question)).svg
            let file = open(plot, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
            guard file >= 0 else { throw LedgerProblem("can't write \(plot): \(errorText(errno))") }
            Output.write(Array(svg.utf8), to: file)
            close(file)
        } catch {
            Output.error("error: \(error)")
            throw ExitCode.wrongInput
        }
    }

    private func question(_ from: Int64, _ to: Int64, _ now: Int64) -> ReportQuestion {
        var question = ReportQuestion(by: by.groups, from: from, to: to, now: now)
        (question.order, question.top) = (sort, top)
        (question.instance, question.env, question.app, question.org) = (only.instance, only.env, app, only.org)
        (question.destination, question.port, question.proto) = (only.address, only.port, proto?.number)
        return question
    }

    private func path() throws(LedgerProblem) -> String {
        if let ledger { return ledger }
        guard let config else { return EgressReport.usualLedger }
        let program: Program?
        do throws(FileError) {
            // Desired state has no part in it.
            program = try ConfigLoader.compileAlone(config, filters: PipelinedCommand.filters).program
        } catch {
            throw LedgerProblem("\(error)")
        }
        if let path = program?.ledger?.path { return path }
        throw LedgerProblem(
            program == nil
                ? "\(config) has errors: run `pipelined check \(config)`"
                : "\(config) has no ledger: write `ledger \(EgressReport.usualLedger)` in its `node` block")
    }

    private static let usualLedger = "/var/lib/pipelined/ledger.db"
}

/// One or two dimensions, as `instance,port`.
struct ReportGroups: ExpressibleByArgument {
    let groups: [ReportGroup]
    init(_ groups: [ReportGroup]) { self.groups = groups }

    init?(argument: String) {
        let words = argument.split(separator: ",", omittingEmptySubsequences: false)
        groups = words.compactMap { ReportGroup(rawValue: String($0)) }
        guard groups.count == words.count, (1...2).contains(groups.count), Set(groups).count == groups.count else {
            return nil
        }
    }

    var defaultValueDescription: String { groups.map(\.rawValue).joined(separator: ",") }
}

struct ReportProtocol: ExpressibleByArgument {
    let number: UInt8

    init?(argument: String) {
        let named = ReportService.protocols.first { $0.name == argument.lowercased() }
        guard let number = named?.number ?? UInt8(argument) else { return nil }
        self.number = number
    }

    static var allValueStrings: [String] { ReportService.protocols.map(\.name) }
}

extension ReportGroup: ExpressibleByArgument {}
extension ReportQuestion.Order: ExpressibleByArgument {}
