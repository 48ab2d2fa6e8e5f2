import MonitorTesting

typealias TemporaryDirectory = MonitorTesting.TemporaryDirectory
