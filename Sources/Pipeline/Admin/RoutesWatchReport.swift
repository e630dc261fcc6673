import CLinux
import Pipeline
import PipelineNode
import PipelineText

/// What `status` says of a routes file that is watched; nil: none is.
struct RoutesWatchReport {
    private let watch: RoutesWatch
    /// What is wrong with the file is a refused update of desired state, and said there.
    private let keepsState: Bool

    init?(_ node: RunningNode) {
        guard let watch = node.routesWatch else { return nil }
        (self.watch, keepsState) = (watch, node.desired != nil)
    }

    var problems: [String] {
        var texts: [String] = []
        if let problem = watch.problem, !keepsState {
            texts.append("the routes file is not in force as it is: \(problem); routes are as they were")
        }
        if let why = watch.pollingReason {
            texts.append("\(watch.path) can't be watched: \(why); it is looked at each second")
        }
        return texts
    }

    private var means: String { watch.pollingReason == nil ? "events" : "polling" }

    var text: String {
        let read = watch.readAt.map { "last read \(Timestamp.text($0))" } ?? "not read yet"
        return "watches \(watch.path) (\(means)), \(read)\(watch.isReading ? ", is being read" : "")\n"
    }

    func write(_ line: inout JSONLine) {
        line.key("routes_watch")
        line.open()
        line.field("path", watch.path)
        line.field("by", means)
        if let readAt = watch.readAt {
            line.key("read_at")
            line.timestamp(readAt)
        } else {
            line.nullField("read_at")
        }
        line.field("reading", watch.isReading)
        line.field("problem", watch.problem)
        line.field("polling_reason", watch.pollingReason)
        line.close()
    }
}
