"""URLs of states in etcd: what is accepted, what is not, and where credentials never appear."""

import pickle

import pytest

from persistent_context import PersistentContext, SyncPersistentContext
from persistent_context._stores.etcd.address import parse


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    """No user is set in the environment."""
    monkeypatch.delenv("PERSISTENT_CONTEXT_ETCD_USER", raising=False)
    monkeypatch.delenv("PERSISTENT_CONTEXT_ETCD_PASSWORD", raising=False)


class TestAValidOne:
    @pytest.mark.parametrize(
        ("url", "endpoints", "namespace"),
        [
            ("etcd://host/app", ("host:2379",), "app"),
            ("etcd://Host:1,10.0.0.1:2/app/", ("host:1", "10.0.0.1:2"), "app"),
            ("etcd://[::1]:23790,[fe80::1]/a/b", ("[::1]:23790", "[fe80::1]:2379"), "a/b"),
            ("etcd://host/a%20b%2Fc", ("host:2379",), "a b/c"),
            ("etcd://host//app//", ("host:2379",), "app"),
        ],
    )
    def test_names_endpoints_and_a_namespace(self, url, endpoints, namespace):
        """Ports, IPv6 addresses and escaped characters are understood."""
        address = parse(url)

        assert (endpoints, namespace) == (address.endpoints, address.namespace)
        assert parse(address.place()) == address

    def test_may_have_certificates(self, tmp_path, monkeypatch):
        """The paths of certificates become absolute."""
        monkeypatch.chdir(tmp_path)
        address = parse("etcd+tls://host/app?ca=ca.pem&cert=/c.pem&key=~/k.pem")

        assert (True, str(tmp_path / "ca.pem"), "/c.pem") == (address.is_encrypted, address.ca, address.cert)
        assert "~" not in address.key
        assert parse(address.place()) == address

    @pytest.mark.parametrize("url", ["etcd://ann:s%3Acret@host/app", "etcd://host/app"])
    def test_may_have_credentials(self, url, monkeypatch):
        """The user and password come from the URL or the environment, and are not part of the place."""
        monkeypatch.setenv("PERSISTENT_CONTEXT_ETCD_USER", "ann")
        monkeypatch.setenv("PERSISTENT_CONTEXT_ETCD_PASSWORD", "s:cret")
        address = parse(url)

        assert ("ann", "s:cret", "etcd://host:2379/app") == (address.user, address.password, address.place())
        assert "cret" not in repr(address)

    def test_may_have_a_user_whose_password_is_in_the_environment(self, monkeypatch):
        """The URL names the user, and the environment has the password."""
        monkeypatch.setenv("PERSISTENT_CONTEXT_ETCD_PASSWORD", "secret")

        assert "secret" == parse("etcd://ann@host/app").password


class TestAnInvalidOne:
    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("etcd://host", "the namespace is missing"),
            ("etcd://host/", "the namespace is missing"),
            ("etcd:///app", "every endpoint must be"),
            ("etcd://host:0/app", "every endpoint must be"),
            ("etcd://host:65536/app", "every endpoint must be"),
            ("etcd://host:x/app", "every endpoint must be"),
            ("etcd://a,,b/app", "every endpoint must be"),
            ("etcd://::1/app", "every endpoint must be"),
            ("etcd://host/app#1", "%23"),
            ("etcd://host/a%00b", "UTF-8 without NUL"),
            ("etcd://host/a%ffb", "UTF-8 without NUL"),
            ("etcd://host/app/k", "no part of the namespace"),
            ("etcd://host/app?ca=x", "certificates need etcd+tls://"),
            ("etcd+tls://host/app?ca", "the options are"),
            ("etcd+tls://host/app?ca=", "the options are"),
            ("etcd+tls://host/app?other=x", "the options are"),
            ("etcd+tls://host/app?key=x", "a key needs a cert"),
            ("etcd://secretive@host/app", "the password is missing"),
            ("etcd://:secretive@host/app", "the user is missing"),
            ("etcd://ann:secretive@host/", "the namespace is missing"),
        ],
    )
    def test_is_refused_at_once(self, url, reason):
        """Creating a context says what is wrong, and shows no credentials."""
        with pytest.raises(ValueError, match="an etcd URL must be of the form") as caught:
            SyncPersistentContext(url)

        assert reason in str(caught.value)
        assert "secretive" not in str(caught.value)

    @pytest.mark.parametrize("options", [{"journal": True}, {"journal": False}, {"on_corrupt": "raise"}])
    def test_options_of_files_are_refused(self, options):
        """Options without a meaning for etcd are not ignored in silence."""
        with pytest.raises(ValueError, match="have no meaning for etcd"):
            PersistentContext("etcd://host/app", **options)


class TestTheContext:
    @pytest.mark.parametrize("kind", [PersistentContext, SyncPersistentContext])
    def test_shows_no_credentials(self, kind):
        """Neither user nor password is in the representation or the place; a pickled copy has them nevertheless."""
        ctx = kind("etcd://ann:secret@host/app", durable=False)
        copy = pickle.loads(pickle.dumps(ctx))

        assert "etcd://host:2379/app" == ctx.place == copy.place
        assert [False] * 4 == [word in text for word in ("ann", "secret") for text in (repr(ctx), repr(copy))]
        assert "secret" == parse(copy._given_path).password

    def test_has_imported_what_it_needs(self, run):
        """Creating a context imports the store: a signal handler that saves does not find it half imported."""
        program = "import sys; from persistent_context import PersistentContext; PersistentContext('etcd://host/app'); "
        ended = run(
            f"{program} print('persistent_context._stores.etcd.store' in sys.modules, 'urllib3' in sys.modules)"
        )

        assert ["True True"] == ended

    def test_needs_an_extra(self, run):
        """Without urllib3, the error says what to install."""
        program = "import sys; sys.modules['urllib3'] = None; from persistent_context import PersistentContext\n"
        program += "try: PersistentContext('etcd://host/app')\nexcept ModuleNotFoundError as error: print(error)"

        assert ["a state in etcd needs the extra 'etcd': in a checkout, pip install '.[etcd]'"] == run(program)

    def test_has_no_file(self):
        """There is no path of a file; the error says what to use."""
        with pytest.raises(RuntimeError, match="use the attribute place"):
            PersistentContext("etcd://host/app").filepath
