import ArgumentParser
import CLinux
import Glibc
import Pipeline
import PipelineAlerts
import PipelineLedger

struct Top: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Who sends most through a running node right now.",
        discussion: """
            Needs `account every` in a pipeline. OUT is from instances, IN is to them. On a terminal it is shown again and \
            again, until Ctrl-C; else once. What is shown is a few seconds old: as old as the first line says. Filters \
            can be combined: only what fits all of them counts.

            EXAMPLES
              pipelined top
              pipelined top --by destination --instance i_7
              pipelined top --by instance --port 25 --sort connections
              pipelined top --json --once | jq '.rows[0]'
            """)

    @OptionGroup var options: AdminOptions
    @Option(help: "What to put together: org, app, env, instance, destination or port.")
    var by = ReportGroup.instance
    @Option(help: "What stands first: bytes or connections.")
    var sort = TopQuestion.Order.bytes
    @Option(help: ArgumentHelp("Over how long; as near as the node has it.", valueName: "seconds"))
    var seconds: UInt64?
    @Option(help: ArgumentHelp("How many rows at most.", valueName: "rows"))
    var rows = 20
    @OptionGroup var only: FlowFilter
    @Flag(help: "Show it once and end.")
    var once = false
    @Option(name: [.customShort("n"), .long], help: ArgumentHelp("Show it so often and end.", valueName: "times"))
    var count: Int?
    @Option(help: ArgumentHelp("How long to wait before it is shown again.", valueName: "seconds"))
    var interval = 2

    func validate() throws {
        guard !(once && count != nil) else { throw ValidationError("--once is --count 1: choose one.") }
        guard count ?? 1 >= 1 else { throw ValidationError("--count takes 1 or more.") }
        guard (1...3600).contains(interval) else { throw ValidationError("--interval takes 1 to 3600.") }
        guard (1...TopQuestion.rowLimit).contains(rows) else {
            throw ValidationError("--rows takes 1 to \(TopQuestion.rowLimit).")
        }
        guard (1...TopQuestion.secondLimit).contains(seconds ?? 1) else {
            throw ValidationError("--seconds takes 1 to \(TopQuestion.secondLimit).")
        }
    }

    func run() throws {
        let isScreen = isatty(1) == 1 && !options.json
        let times = once ? 1 : count ?? (isatty(1) == 1 ? Int.max : 1)
        for time in 0..<times {
            if time > 0 { cl_sleep(Int64(interval) * 1_000_000_000) }
            // Home, and the rest of the screen empty: nothing flickers, and what was there before stays above.
            if isScreen, times > 1 { Output.text("\u{1B}[H\u{1B}[2J") }
            try options.ask(.top(question))
        }
    }

    private var question: TopQuestion {
        var question = TopQuestion()
        question.by = by
        question.order = sort
        question.seconds = seconds
        question.rows = rows
        (question.instance, question.env, question.org) = (only.instance, only.env, only.org)
        (question.destination, question.port) = (only.address, only.port)
        return question
    }
}

extension TopQuestion.Order: ExpressibleByArgument {}
