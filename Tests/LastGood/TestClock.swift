import Pipeline
import PipelineRouting

/// Clocks that a test turns.
final class TestClock {
    var now = NodeTime(monotonic: Instant(nanoseconds: 1_000_000_000_000), wall: 1_800_000_000_000_000_000)
    func pass(_ seconds: UInt32) {
        now.monotonic = now.monotonic + .seconds(seconds)
        now.wall += UInt64(seconds) * 1_000_000_000
    }
    /// The wall clock is set by so much.
    func step(_ seconds: Int64) { now.wall = UInt64(Int64(now.wall) + seconds * 1_000_000_000) }

    /// Has the state go by them.
    /// - Parameter ahead: how far its machine's monotonic clock is ahead.
    func drive(_ state: RoutingState, ahead: UInt64 = 0) {
        state.clock = {
            NodeTime(monotonic: Instant(nanoseconds: self.now.monotonic.nanoseconds + ahead), wall: self.now.wall)
        }
        state.cooldown = CooldownSetting(instances: .seconds(60), ipv4: .seconds(120))
    }
}
