// swift-tools-version: 6.2
// Measurements that need the library from inside. What the others measure is the built command.
import PackageDescription

let package = Package(
    name: "benchmarks",
    dependencies: [.package(name: "windhover", path: "..")],
    targets: [
        .executableTarget(
            name: "exits", dependencies: [.product(name: "MonitorTesting", package: "windhover")], path: "exits",
            exclude: ["bare.c", "run"], sources: ["Exits.swift"],
            swiftSettings: [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]),
        .executableTarget(
            name: "blockqueue", dependencies: [.product(name: "MonitorTesting", package: "windhover")], path: "virtio",
            exclude: ["README.md", "run", "NetQueue.swift"], sources: ["BlockQueue.swift"],
            swiftSettings: [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]),
        .executableTarget(
            name: "netqueue", dependencies: [.product(name: "MonitorTesting", package: "windhover")], path: "virtio",
            exclude: ["README.md", "run", "BlockQueue.swift"], sources: ["NetQueue.swift"],
            swiftSettings: [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]),
        .executableTarget(
            name: "sharerequests", dependencies: [.product(name: "MonitorTesting", package: "windhover")], path: "share",
            exclude: ["README.md", "guest", "run"],
            swiftSettings: [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]),
        .testTarget(
            name: "suite",
            dependencies: [
                .product(name: "Windhover", package: "windhover"), .product(name: "WindhoverTesting", package: "windhover"),
            ],
            path: "suite", exclude: ["run"], swiftSettings: [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]),
    ]
)
