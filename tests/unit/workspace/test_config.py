"""`rawr.toml` as one frozen value, with errors that name the file and the key."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rawr.workspace.config import Config, ConfigError, EngineConfig, LimitsConfig, load_config


def written(root: Path, text: str) -> Path:
    (root / "rawr.toml").write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("text", ["", "[server]\n", "# nothing\n"])
def test_everything_has_a_default(tmp_path: Path, text: str) -> None:
    assert load_config(written(tmp_path, text), environ={}) == Config()
    assert Config().server.port == 3000
    assert Config().server.host == "127.0.0.1"


def test_a_missing_file_is_all_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path, environ={}) == Config()


def test_every_key_is_read(tmp_path: Path) -> None:
    config = load_config(
        written(
            tmp_path,
            """
[server]
host = "127.0.0.1"
port = 0
base_url = "https://hq.example.org/rawr"
trusted_hosts = ["hq.example.org"]
[limits]
body_bytes = 1024
[engine]
concurrency = 2
mode = "inngest"
base_url = "https://api.inngest.com"
event_url = "https://inn.gs"
trace_url = "https://app.inngest.com/env/production"
""",
        ),
        environ={},
    )
    assert config.server.port == 0
    assert config.server.base_url == "https://hq.example.org/rawr"
    assert config.server.trusted_hosts == ("hq.example.org",)
    assert config.limits.body_bytes == 1024
    assert config.engine == EngineConfig(
        concurrency=2,
        mode="inngest",
        base_url="https://api.inngest.com",
        event_url="https://inn.gs",
        trace_url="https://app.inngest.com/env/production",
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 3\n", "`prot`"),
        ("[server]\nprot = 3\n", "`prot` - at `$.server`"),
        ("[server]\nport = '3000'\n", "$.server.port"),
        ("[server]\nport = true\n", "$.server.port"),
        ("[server]\nport = 65536\n", "$.server.port"),
        ("[server]\nport = -1\n", "$.server.port"),
        ("[server]\nhost = 3\n", "$.server.host"),
        ("[server]\nhost = 'http://x'\n", "server.host is 'http://x'"),
        ("[server]\nhost = ''\n", "server.host is ''"),
        ("[server]\ntrusted_proxies = ['proxy.example']\n", "server.trusted_proxies has 'proxy.example'"),
        ("[server]\ntrusted_proxies = ['10.0.0.1/8']\n", "server.trusted_proxies has '10.0.0.1/8'"),
        ("[server]\ntls_cert = 'hq.pem'\n", "server.tls_key is missing"),
        ("[server]\ntls_key = 'hq.key'\n", "server.tls_cert is missing"),
        ("[server]\nbase_url = 'hq.example.org'\n", "server.base_url is 'hq.example.org'"),
        ("[server]\nbase_url = 'http://x:99999'\n", "server.base_url"),
        ("[server]\ntrusted_hosts = ['http://x']\n", "server.trusted_hosts has 'http://x'"),
        ("[server]\ntrusted_hosts = ['x:80']\n", "server.trusted_hosts has 'x:80'"),
        ("[server]\ntrusted_hosts = 'x'\n", "$.server.trusted_hosts"),
        ("[limits]\nbody_bytes = 1\n", "$.limits.body_bytes"),
        ("[limits]\nbody_s = nan\n", "$.limits.body_s"),
        ("[limits]\nbody_s = inf\n", "$.limits.body_s"),
        ("[limits]\nbody = 1\n", "`body` - at `$.limits`"),
        ("[engine]\nconcurrency = 0\n", "$.engine.concurrency"),
        ("[engine]\nmode = 'temporal'\n", "$.engine.mode"),
        ("[engine]\nmode = 'inngest'\n", "engine.base_url is missing"),
        ("[engine]\nbase_url = 'localhost:8288'\n", "engine.base_url is 'localhost:8288'"),
        ("[engine]\nevent_url = 'ftp://x'\n", "engine.event_url is 'ftp://x'"),
        ("[engine]\ntrace_url = 'x'\n", "engine.trace_url is 'x'"),
        ("server = 3\n", "$.server"),
        ("[server\n", "cannot be read"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(written(tmp_path, text), environ={})
    assert raised.value.code == "CONFIG_INVALID"
    assert raised.value.message.startswith(str(tmp_path / "rawr.toml"))
    assert named in raised.value.message


@pytest.mark.parametrize("key", [field.name for field in msgspec.structs.fields(LimitsConfig)])
@pytest.mark.parametrize("value", ["-1", "1000000000000", "'1'", "true"])
def test_a_limit_out_of_its_range_is_an_error_that_names_it(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(written(tmp_path, f"[limits]\n{key} = {value}\n"), environ={})
    assert f"$.limits.{key}" in raised.value.message


def test_a_file_that_is_not_utf8_or_no_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rawr.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, environ={})
    (tmp_path / "rawr.toml").unlink()
    (tmp_path / "rawr.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, environ={})


def test_the_environment_overrides_the_port(tmp_path: Path) -> None:
    root = written(tmp_path, "[server]\nport = 4000\nbase_url = 'http://x'\n")
    config = load_config(root, environ={"RAWR_SERVER_PORT": "0"})
    assert (config.server.port, config.server.base_url) == (0, "http://x")
    assert load_config(root, environ={"RAWR_SERVER_PORT": ""}).server.port == 4000


@pytest.mark.parametrize("port", ["x", "-1", "65536", "99999", "1.0", " 80", "８０", "9" * 5000])
def test_a_wrong_port_in_the_environment_is_an_error_that_names_the_variable(tmp_path: Path, port: str) -> None:
    with pytest.raises(ConfigError, match=r"^RAWR_SERVER_PORT is "):
        load_config(tmp_path, environ={"RAWR_SERVER_PORT": port})
