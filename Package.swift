// swift-tools-version: 6.2
// Targets only: what depends on what. The layout and its reasons are in docs/design.md.
import PackageDescription

/// Every Swift target of ours: Swift 6 mode, strict memory safety, and no warning survives.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .treatAllWarnings(as: .error),
]

/// Tests hold no guest-facing code, so they are spared the `unsafe` markers.
let testing: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .treatAllWarnings(as: .error),
]

/// The software CPU: optimised as a whole in debug builds too, because its handlers hand over to each other by tail
/// calls, which only the optimiser makes; unoptimised, every instruction would deepen the stack.
/// Exclusivity is unchecked: its state is one block that is reached through accessors, on one thread.
let interpreter: [SwiftSetting] = strict + [
    .unsafeFlags(["-enforce-exclusivity=unchecked"]),
    // A handler is a Swift closure that is inlined into a C thunk. Merging closures that are alike would leave a call there
    // that cannot be a tail call, for the two have different calling conventions.
    .unsafeFlags(["-Xllvm", "-swiftmergefunc-threshold=0", "-Xllvm", "-inline-threshold=1000"]),
    // Setting up a frame pointer would be a third of a handler's instructions.
    .unsafeFlags(["-Xcc", "-momit-leaf-frame-pointer"]),
    .unsafeFlags(["-O", "-wmo", "-num-threads", "2", "-disable-batch-mode"], .when(configuration: .debug)),
]

/// What runs once: options, images, tests' files. The binary that ships has a bar for its size, and this has none for its speed.
let small: [SwiftSetting] = strict + [.unsafeFlags(["-Osize"], .when(configuration: .release))]

let package = Package(
    name: "windhover",
    products: [
        .executable(name: "hover", targets: ["hover"]),
        .library(name: "Windhover", targets: ["Windhover"]),
        .library(name: "WindhoverTesting", targets: ["WindhoverTesting"]),
        // For the package of the benchmarks.
        .library(name: "MonitorTesting", targets: ["MonitorTesting"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        // What C says for us.
        .target(name: "CKVM", path: "Shims/CKVM"),
        .target(name: "CHost", path: "Shims/CHost"),
        .target(name: "CNative", path: "Shims/CNative"),
        .target(name: "CBuiltinGuest", path: "Shims/CBuiltinGuest"),
        .target(name: "CGuestAgent", path: "Shims/CGuestAgent"),
        .systemLibrary(
            name: "CCompression", path: "Shims/CCompression",
            providers: [.apt(["zlib1g-dev", "liblzma-dev", "liblz4-dev", "libzstd-dev"])]),

        // The monitor. Arrows point down: see the drawing in docs/design.md.
        .target(name: "VMCore", dependencies: ["CHost"], swiftSettings: strict),
        .target(name: "KVM", dependencies: ["CKVM", "VMCore"], swiftSettings: strict),
        .target(name: "X86", swiftSettings: strict),
        .target(
            name: "SoftCPU", dependencies: ["VMCore", "X86", "CHost"], exclude: ["Hot/handlers.py"],
            swiftSettings: interpreter),
        .target(name: "Devices", dependencies: ["VMCore"], swiftSettings: strict),
        .target(name: "Boot", dependencies: ["VMCore", "CCompression"], swiftSettings: strict),
        .target(name: "PCI", dependencies: ["VMCore"], swiftSettings: strict),
        .target(name: "Virtio", dependencies: ["VMCore", "PCI", "CHost"], swiftSettings: strict),
        .target(
            name: "Machine", dependencies: ["VMCore", "KVM", "SoftCPU", "Devices", "PCI", "Virtio", "Boot", "CHost"],
            swiftSettings: strict),
        .target(
            name: "Windhover",
            dependencies: [
                "Machine", "Devices", "Virtio", "Boot", "VMCore", "CHost", "CBuiltinGuest", "CGuestAgent", "CCompression",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: small),
        // For the tests of others: it imports Swift Testing, which a program of ours must not need.
        .target(name: "WindhoverTesting", dependencies: ["Windhover"], swiftSettings: strict),
        // For our own.
        .target(
            name: "MonitorTesting", dependencies: ["VMCore", "PCI", "Virtio", "Machine", "KVM", "SoftCPU", "Windhover", "X86", "CHost", "CNative"],
            swiftSettings: strict),
        .executableTarget(
            name: "hover",
            dependencies: [
                "Windhover", "Machine", "KVM", "Boot", "VMCore",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: small),

        // The conformance suite where there is no test runner: in the boxes of Tests/IntegrationTests/rig.
        .executableTarget(name: "conformance", dependencies: ["MonitorTesting"], swiftSettings: strict),

        // Random code on the interpreter; its own program, so that it can be optimised and run for as long as wanted.
        .executableTarget(
            name: "fuzz-interpreter", dependencies: ["MonitorTesting"], path: "Tests/FuzzInterpreter", exclude: ["soak.sh"],
            swiftSettings: testing),

        // A driver without rules, likewise.
        .executableTarget(
            name: "fuzz-virtio", dependencies: ["Virtio", "VMCore", "MonitorTesting"], path: "Tests/FuzzVirtio", exclude: ["soak.sh"],
            swiftSettings: testing),

        .testTarget(name: "MonitorTestingTests", dependencies: ["MonitorTesting"], swiftSettings: testing),
        .testTarget(name: "VMCoreTests", dependencies: ["VMCore"], swiftSettings: testing),
        .testTarget(name: "KVMTests", dependencies: ["KVM", "CKVM", "VMCore", "MonitorTesting"], swiftSettings: testing),
        .testTarget(name: "X86Tests", dependencies: ["X86", "MonitorTesting"], exclude: ["oracle"], swiftSettings: testing),
        .testTarget(
            name: "SoftCPUTests", dependencies: ["SoftCPU", "X86", "Devices", "VMCore", "CHost", "MonitorTesting"],
            swiftSettings: testing),
        .testTarget(name: "DevicesTests", dependencies: ["Devices", "MonitorTesting"], swiftSettings: testing),
        .testTarget(name: "PCITests", dependencies: ["PCI", "VMCore", "MonitorTesting"], swiftSettings: testing),
        .testTarget(name: "VirtioTests", dependencies: ["Virtio", "VMCore", "MonitorTesting"], swiftSettings: testing),
        .testTarget(name: "BootTests", dependencies: ["Boot", "CCompression", "MonitorTesting"], swiftSettings: testing),
        .testTarget(name: "MachineTests", dependencies: ["Machine", "KVM", "SoftCPU", "VMCore", "MonitorTesting"], swiftSettings: testing),
        .testTarget(
            name: "WindhoverTests", dependencies: ["Windhover", "WindhoverTesting", "MonitorTesting", "Machine", "VMCore", "CHost"],
            swiftSettings: testing),
        .testTarget(
            name: "DifferentialTests", dependencies: ["MonitorTesting", "X86", "CNative"], exclude: ["soak.sh"], swiftSettings: testing),
        .testTarget(name: "HoverTests", dependencies: ["hover", "Windhover", "MonitorTesting", "CHost"], swiftSettings: testing),
        .testTarget(
            name: "IntegrationTests",
            dependencies: ["MonitorTesting", "Boot", "Machine", "Windhover", "WindhoverTesting", "KVM", "VMCore", "hover"],
            exclude: ["rig"], swiftSettings: testing),
    ]
)
