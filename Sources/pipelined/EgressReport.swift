import ArgumentParser
import CLinux
import Glibc
import Pipeline
import PipelineControl
import PipelineLedger

struct EgressReport: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Who sent how much, where and when.",
        discussion: """
            Reads the ledger of a node, running or not. OUT is from instances, IN is to them. Times are UTC: \
            2026-11-25T03:00, 2026-11-25, or how long ago: 30m, 24h, 7d. Where minutes or hours are gone by age, the range is \
            widened to what is there, and the first line says so.

            EXAMPLES
              pipelined egress report --config egress.pipeline
              pipelined egress report --by destination --from 1h --top 10
              pipelined egress report --by env --from 2026-11-01 --to 2026-12-01 --csv
              pipelined egress report --from 24h --plot day.svg
            """)

    @Option(help: ArgumentHelp("The ledger's file.", valueName: "path"), completion: .file())
    var ledger: String?
    @Option(help: ArgumentHelp("The config that names the ledger.", valueName: "config"), completion: .file())
    var config: String?
    @Option(help: "What to put together: org, env, instance, destination or port.")
    var by = ReportGroup.env
    @Option(help: ArgumentHelp("The beginning.", valueName: "time"))
    var from = "24h"
    @Option(help: ArgumentHelp("The end.", valueName: "time"))
    var to = "now"
    @Option(help: ArgumentHelp("How many rows at most.", valueName: "rows"))
    var top = 20
    @Flag(help: "One JSON document, for programs.")
    var json = false
    @Flag(help: "Comma-separated values with a head.")
    var csv = false
    @Option(help: ArgumentHelp("Also draw volume over time per env.", valueName: "file.svg"), completion: .file())
    var plot: String?

    func validate() throws {
        guard !(json && csv) else {
            throw ValidationError("--json and --csv are two ways to write one answer: choose one.")
        }
        guard ledger == nil || config == nil else {
            throw ValidationError("--config names the ledger too: choose one.")
        }
        guard (1...1_000_000).contains(top) else { throw ValidationError("--top takes 1 to 1000000.") }
        for time in [from, to] where LedgerTime.parse(time, now: 0) == nil {
            throw ValidationError("'\(time)' is no time; write 2026-11-25T03:00, 2026-11-25, 24h, 7d or now.")
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
            let text = EgressReportText(try reader.report(by: by, from: from, to: to, now: now, top: top))
            Output.text(json ? text.json : csv ? text.csv : text.table)
            guard let plot else { return }
            let svg = EgressPlot(try reader.series(from: from, to: to, now: now)).svg
            let file = open(plot, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
            guard file >= 0 else { throw LedgerProblem("can't write \(plot): \(String(cString: strerror(errno)))") }
            Output.write(Array(svg.utf8), to: file)
            close(file)
        } catch {
            Output.error("error: \(error)")
            throw ExitCode.wrongInput
        }
    }

    private func path() throws(LedgerProblem) -> String {
        if let ledger { return ledger }
        guard let config else { return EgressReport.usualLedger }
        let program: Program?
        do throws(FileError) {
            // Desired state has no part in it.
            program = try ConfigLoader.compileAlone(config).program
        } catch {
            throw LedgerProblem("\(error)")
        }
        if let path = program?.node.ledger?.path { return path }
        throw LedgerProblem(
            program == nil
                ? "\(config) has errors: run `pipelined check \(config)`"
                : "\(config) has no ledger: write `ledger \(EgressReport.usualLedger)` in its `node` block")
    }

    private static let usualLedger = "/var/lib/pipelined/ledger.db"
}

extension ReportGroup: ExpressibleByArgument {}
