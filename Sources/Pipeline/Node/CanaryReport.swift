import Pipeline
import PipelineText

/// The evidence of a canary, as fields.
package enum CanaryReport {
    package static func write(_ line: inout JSONLine, _ tally: CanaryTally) {
        for side in CanarySide.allCases {
            line.key(side == .canary ? "canary" : "others")
            line.open()
            line.field("connections", tally.total(.begun, side))
            line.field("relayed", tally.total(.relayed, side))
            line.field("refused", tally.total(.refused, side))
            line.field("not_connected", tally.total(.notConnected, side))
            line.field("left", tally.total(.left, side))
            line.field("ended", tally.total(.ended, side))
            line.field("broken", tally.total(.broken, side))
            line.field("unanswered", tally.total(.unanswered, side))
            if let time = tally.typicalTime(side) {
                line.field("typical_us", time.nanoseconds / 1000)
            } else {
                line.nullField("typical_us")
            }
            line.close()
        }
    }
}
