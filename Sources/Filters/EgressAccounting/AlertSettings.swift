import Pipeline

/// The `alerts` block: thresholds above which an instance's traffic raises an alert. Nil is `off`.
public struct AlertSettings: Sendable, Equatable {
    /// More than `count` within `window`.
    public struct Threshold: Sendable, Equatable {
        public var count: UInt32
        public var window: TimeSpan
        public init(_ count: UInt32, in window: TimeSpan) {
            self.count = count
            self.window = window
        }
    }

    /// More bytes in a window, both ways together, than `factor` times what is usual for the instance, and than `floor`.
    public struct Volume: Sendable, Equatable {
        public var factor: UInt32
        public var floor: UInt64
        public var window: TimeSpan
        public init(factor: UInt32, floor: UInt64, in window: TimeSpan) {
            self.factor = factor
            self.floor = floor
            self.window = window
        }
    }

    /// Destinations that are new to the instance.
    public var fanOut: Threshold? = Threshold(200, in: .seconds(60))
    /// Connections to mail ports, refused ones included.
    public var smtp: Threshold? = Threshold(30, in: .seconds(60))
    /// Distinct (destination, port) that refused, or were refused.
    public var portScan: Threshold? = Threshold(50, in: .seconds(60))
    public var volume: Volume? = Volume(factor: 10, floor: 1 << 30, in: .seconds(300))
    /// How often an ongoing alert is logged again.
    public var repeatEvery = TimeSpan.seconds(900)

    /// The largest threshold: an engine can distinguish a little more per instance.
    public static let countLimit: UInt32 = 4000
    public static let mailPorts: [UInt16] = [25, 465, 587]

    public init() {}

    /// All alerts are off.
    public var isOff: Bool { fanOut == nil && smtp == nil && portScan == nil && volume == nil }
}
