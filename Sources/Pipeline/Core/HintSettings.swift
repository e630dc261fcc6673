/// The `hints` block: from when on an instance's traffic is worth an operator's look. Nil is `off`.
package struct HintSettings: Sendable, Equatable {
    /// More than `count` within `window`.
    package struct Threshold: Sendable, Equatable {
        package var count: UInt32
        package var window: TimeSpan
        package init(_ count: UInt32, in window: TimeSpan) {
            self.count = count
            self.window = window
        }
    }

    /// More bytes in a window, both ways together, than `factor` times what is usual for the instance, and than `floor`.
    package struct Volume: Sendable, Equatable {
        package var factor: UInt32
        package var floor: UInt64
        package var window: TimeSpan
        package init(factor: UInt32, floor: UInt64, in window: TimeSpan) {
            self.factor = factor
            self.floor = floor
            self.window = window
        }
    }

    /// Destinations that the instance did not talk to before.
    package var fanOut: Threshold? = Threshold(200, in: .seconds(60))
    /// Connections to the ports of mail, also refused ones.
    package var smtp: Threshold? = Threshold(30, in: .seconds(60))
    /// Distinct (destination, port) that refused, or were refused.
    package var portScan: Threshold? = Threshold(50, in: .seconds(60))
    package var volume: Volume? = Volume(factor: 10, floor: 1 << 30, in: .seconds(300))
    /// How often a hint that goes on is said again.
    package var repeatEvery = TimeSpan.seconds(900)

    /// The most that a threshold may say: what an engine can tell apart per instance is a little more.
    package static let countLimit: UInt32 = 4000
    package static let mailPorts: [UInt16] = [25, 465, 587]

    package init() {}

    /// Nothing is to be looked for.
    package var isOff: Bool { fanOut == nil && smtp == nil && portScan == nil && volume == nil }
}
