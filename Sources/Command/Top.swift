import ArgumentParser
import CLinux
import Glibc
import Pipeline
import PipelineAlerts
import PipelineLedger

struct Top: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Current traffic through a running node: who sends most.",
        discussion: """
            Needs `account every` in a pipeline. OUT is from instances, IN is to them. On a terminal the table is \
            refreshed until Ctrl-C; otherwise it is printed once. The figures are a few seconds old; the first line \
            says how old. Combined filters must all match.

            EXAMPLES
              pipelined top
              pipelined top --by destination --instance i_7
              pipelined top --by instance --port 25 --sort connections
              pipelined top --json --once | jq '.rows[0]'
            """)

    @OptionGroup var options: AdminOptions
    @Option(help: "What to aggregate by: org, app, env, instance, destination or port.")
    var by = ReportGroup.instance
    @Option(help: "What to sort by: bytes or connections.")
    var sort = TopQuestion.Order.bytes
    @Option(help: ArgumentHelp("The length of the window; the node takes the nearest it has.", valueName: "seconds"))
    var seconds: UInt64?
    @Option(help: ArgumentHelp("The most rows to show.", valueName: "rows"))
    var rows = 20
    @OptionGroup var only: FlowFilter
    @Flag(help: "Print the table once and exit.")
    var once = false
    @Option(
        name: [.customShort("n"), .long],
        help: ArgumentHelp("Print the table this many times and exit.", valueName: "times"))
    var count: Int?
    @Option(help: ArgumentHelp("The time between two refreshes.", valueName: "seconds"))
    var interval = 2

    func validate() throws {
        guard !(once && count != nil) else { throw ValidationError("--once means --count 1: choose one.") }
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
            // Moves the cursor home and clears the rest of the screen: no flicker, and the scrollback stays.
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
