"""The REST API."""

import math
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

HALF, ALL = "/v1/models/half_plus_two", "/v1/models/everything"


def signed(signature: str, **body: Any) -> dict[str, Any]:
    return {"signature_name": signature, **body}


class TestPredict:
    def test_rows(self, target: Any) -> None:
        assert target.rest(f"{HALF}:predict", {"instances": [2.0, 3.0, 4.0]}).body == {
            "predictions": [3.0, 3.5, 4.0]
        }

    def test_columns(self, target: Any) -> None:
        assert target.rest(f"{HALF}:predict", {"inputs": [2.0, 3.0, 4.0]}).body == {
            "outputs": [3.0, 3.5, 4.0]
        }

    def test_a_scalar_column(self, target: Any) -> None:
        assert target.rest(f"{ALL}:predict", signed("scalar", inputs=2)).body == {"outputs": 3.0}

    def test_named_rows(self, target: Any) -> None:
        body = signed("two", instances=[{"a": 3, "b": 1}, {"a": 1.5, "b": 1}])
        assert target.rest(f"{ALL}:predict", body).body["predictions"] == [
            {"difference": 2.0, "a_again": 3.0, "zeros": 0.0},
            {"difference": 0.5, "a_again": 1.5, "zeros": 0.0},
        ]

    def test_named_columns(self, target: Any) -> None:
        body = signed("two", inputs={"a": [3, 1.5], "b": [1, 1]})
        assert target.rest(f"{ALL}:predict", body).body["outputs"] == {
            "difference": [2.0, 0.5],
            "a_again": [3.0, 1.5],
            "zeros": [0.0, 0.0],
        }

    def test_nested_lists(self, target: Any) -> None:
        body = {"instances": [[1, 2], [3, 4]]}
        assert target.rest(f"{ALL}:predict", body).body == {"predictions": [[7.0, 10.0], [15.0, 22.0]]}

    def test_base64_in_and_out(self, target: Any) -> None:
        body = signed("texts", instances=[{"b64": "Y2F0"}, "dog"])
        assert target.rest(f"{ALL}:predict", body).body["predictions"] == [
            {"code": 1, "length": 3, "text_bytes": {"b64": "Y2F0"}, "upper": "CAT"},
            {"code": 2, "length": 3, "text_bytes": {"b64": "ZG9n"}, "upper": "DOG"},
        ]

    @pytest.mark.parametrize(
        ("dtype", "values"),
        [
            ("float", [0.2, -1.5, 3e38]),
            ("double", [0.1, 1e300]),
            ("int32", [-(2**31), 2**31 - 1]),
            ("int16", [-5, 5]),
            ("int8", [-5, 5]),
            ("uint8", [0, 255]),
            ("uint32", [0, 2**32 - 1]),
            ("uint64", [0, 2**64 - 1]),
            ("int64", [-(2**63), 2**63 - 1]),
            ("bool", [True, False]),
            ("string", ["a", "é"]),
        ],
    )
    def test_dtypes(self, target: Any, dtype: str, values: list[Any]) -> None:
        answer = target.rest(f"{ALL}:predict", signed(f"same_{dtype}", instances=values))
        assert answer.body == {"predictions": values}

    def test_floats_keep_a_point_and_are_short(self, target: Any) -> None:
        text = target.rest(f"{ALL}:predict", signed("same_float", instances=[0.2, 3])).text
        assert "0.2" in text
        assert "0.20000000" not in text
        assert "3.0" in text

    def test_short_floats_are_printed_alike_beside_infinity(self, target: Any) -> None:
        for values in (b"0.1, 2", b"0.1, Infinity", b"0.1, NaN"):
            body = b'{"signature_name": "same_half", "instances": [%s]}' % values
            assert "0.099975586" in target.rest(f"{ALL}:predict", body).text

    def test_nan_beside_other_outputs(self, target: Any) -> None:
        body = signed("specials", instances=[0.0, 2.0])
        first, second = target.rest(f"{ALL}:predict", body).body["predictions"]
        assert math.isnan(first.pop("nan"))
        assert math.isnan(second.pop("nan"))
        assert (first, second) == ({"inverse": math.inf, "same": 0.0}, {"inverse": 0.5, "same": 2.0})

    def test_nan_and_infinity_both_ways(self, target: Any) -> None:
        body = b'{"signature_name": "same_float", "instances": [NaN, Infinity, -Infinity, 0.2]}'
        answer = target.rest(f"{ALL}:predict", body)
        found = answer.body["predictions"]
        assert math.isnan(found[0])
        assert found[1:] == [math.inf, -math.inf, 0.2]
        assert "NaN" in answer.text
        assert "-Infinity" in answer.text

    def test_a_number_too_large_for_any_float_is_infinity(self, target: Any) -> None:
        body = b'{"signature_name": "same_double", "instances": [1e400]}'
        assert target.rest(f"{ALL}:predict", body).body["predictions"] == [math.inf]

    def test_version_in_the_path(self, target: Any) -> None:
        assert target.rest(f"{HALF}/versions/123:predict", {"instances": [2.0]}).body == {
            "predictions": [3.0]
        }

    def test_escaped_name(self, target: Any) -> None:
        path = "/v1/models/half%5Fplus%5Ftwo:predict"
        assert target.rest(path, {"instances": [2.0]}).body == {"predictions": [3.0]}

    def test_content_type(self, target: Any) -> None:
        assert target.rest(f"{HALF}:predict", {"instances": [2.0]}).content_type == "application/json"
        assert target.rest(f"{HALF}:predict", b"{").content_type == "application/json"


class TestPredictErrors:
    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"", "JSON Parse error: The document is empty"),
            (b"{", "JSON Parse error:"),
            (b"[1, 2]", "Is not object"),
            (b"{}", "Missing 'inputs' or 'instances' key"),
            (
                b'{"instances": [1], "inputs": [1]}',
                "only one of 'inputs' or 'instances' keys to exist",
            ),
            (b'{"instances": []}', "No values in 'instances' array"),
            (b'{"instances": 1}', "Excepting 'instances' to be an list/array"),
            (b'{"instances": ["x"]}', 'JSON Value: "x" Type: String is not of expected type: float'),
            (b'{"instances": [true]}', "is not of expected type: float"),
            (b'{"instances": [null]}', "is not of expected type: float"),
            (b'{"instances": [1.0, [2.0]]}', "Expecting shape [] but got: [1]"),
            (b'{"instances": [[1.0, 2.0], [2.0]]}', "Expecting tensor size: 2 but got: 1"),
            (b'{"instances": [[1.0], {"x": 1.0}]}', "Expecting value/list but got object at item 1"),
            (b'{"instances": [{"x": 1.0}, 1.0]}', "Expecting object but got list at item 1"),
            (b'{"instances": [{"z": 1.0}]}', "JSON object: does not have named input: z"),
            (b'{"inputs": {"z": 1.0}}', "Missing named input: x in 'inputs' object."),
            (b'{"signature_name": 5, "instances": [1.0]}', "'signature_name' key must be a string value"),
            (
                b'{"signature_name": "no", "instances": [1.0]}',
                'Serving signature name: "no" not found in signature def',
            ),
            (b'{"instances": [16777217]}', "without loss of precision"),
            (b'{"instances": [1.5, 16777217]}', "without loss of precision"),
        ],
    )
    def test_400(self, target: Any, body: bytes, text: str) -> None:
        answer = target.rest(f"{HALF}:predict", body, method="POST")
        assert answer.status == 400
        assert text in answer.error

    @pytest.mark.parametrize(
        ("signature", "body", "text"),
        [
            ("same_int32", [1.5], "is not of expected type: int32"),
            ("same_int32", [2**31], "is not of expected type: int32"),
            ("same_uint32", [-1], "is not of expected type: uint32"),
            ("same_bool", [1], "is not of expected type: bool"),
            ("same_string", [1], "is not of expected type: string"),
            ("same_string", [{"b64": "&&&"}], "Unable to base64 decode"),
        ],
    )
    def test_wrong_json_type(self, target: Any, signature: str, body: list[Any], text: str) -> None:
        answer = target.rest(f"{ALL}:predict", signed(signature, instances=body))
        assert answer.status == 400
        assert text in answer.error

    @pytest.mark.parametrize("depth", [33, 70, 900])
    @pytest.mark.parametrize("key", ["instances", "inputs"])
    def test_lists_in_too_many_levels(self, target: Any, key: str, depth: int) -> None:
        body = b'{"%s": %s1.0%s}' % (key.encode(), b"[" * depth, b"]" * depth)
        answer = target.rest(f"{ALL}:predict", body)
        assert answer.status == 400
        if target.is_ours:
            assert "levels, expected less than 32" in answer.error

    def test_errors_quote_the_beginning_of_a_long_value(self, target: Any) -> None:
        body = b'{"instances": [], "x": ' + b"[" * 900 + b"]" * 900 + b"}"
        answer = target.rest(f"{HALF}:predict", body)
        assert answer.status == 400
        assert answer.error.startswith("JSON Value: {")
        if target.is_ours:
            assert len(answer.error) < 600

    def test_ragged_column(self, target: Any) -> None:
        answer = target.rest(f"{ALL}:predict", {"inputs": [[1.0, 2.0], [3.0]]})
        assert answer.status == 400
        assert "Encountered list at unexpected size: 1 at level: 1 expected size: 2" in answer.error

    def test_several_inputs_need_objects(self, target: Any) -> None:
        for key, text in (("instances", "expecting list of objects"), ("inputs", "expecting an object")):
            answer = target.rest(f"{ALL}:predict", signed("two", **{key: [1.0]}))
            assert answer.status == 400
            assert text in answer.error

    @pytest.mark.parametrize(
        ("path", "status", "text"),
        [
            ("/v1/models/m:predict", 404, "Servable not found for request: Latest(m)"),
            (
                f"{HALF}/versions/9:predict",
                404,
                "Servable not found for request: Specific(half_plus_two, 9)",
            ),
            (f"{HALF}/labels/no:predict", 400, "Unrecognized servable version label: no"),
            (f"{HALF}/versions/99999999999999999999:predict", 400, "Failed to convert version"),
            (f"{HALF}/versions/{'9' * 5000}:predict", 400, "Failed to convert version"),
            (f"{HALF}:other", 400, "Malformed request: POST"),
            (f"{HALF}", 400, "Malformed request: POST"),
        ],
    )
    def test_paths(self, target: Any, path: str, status: int, text: str) -> None:
        answer = target.rest(path, {"instances": [1.0]})
        assert answer.status == status
        assert text in answer.error

    @pytest.mark.parametrize("path", ["/", "/v2/models/x", "/metrics"])
    def test_outside_v1(self, target: Any, path: str) -> None:
        assert target.rest(path).status == 404


class TestClassifyAndRegress:
    def test_classify(self, target: Any) -> None:
        body = signed("classify_x_to_y", examples=[{"x": 2.0}, {"x": 0.4}])
        assert target.rest(f"{HALF}:classify", body).body == {"results": [[["", 3.0]], [["", 2.2]]]}

    def test_regress_with_a_context(self, target: Any) -> None:
        body = signed("regress_x_to_y", context={"x": 4.0}, examples=[{"x": 2.0}, {}])
        assert target.rest(f"{HALF}:regress", body).body == {"results": [3.0, 4.0]}

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ({}, "key 'examples' is expected and was not found"),
            ({"examples": 1}, "Expecting 'examples' value to be an list/array"),
            ({"examples": []}, "'examples' value is an empty array"),
            ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
            ({"examples": [{"x": None}]}, "has element with unexpected JSON type: Null"),
            ({"examples": [{"x": [1.0, "a"]}]}, "Unexpected element type in feature: x"),
            ({"examples": [{"x": 2**63}]}, "Only int64 is supported"),
        ],
    )
    def test_refused(self, target: Any, body: dict[str, Any], text: str) -> None:
        answer = target.rest(f"{HALF}:regress", signed("regress_x_to_y", **body))
        assert answer.status == 400
        assert text in answer.error


class TestAbout:
    def test_status_has_versions_as_texts(self, target: Any) -> None:
        assert target.rest(HALF).body == {
            "model_version_status": [
                {
                    "version": "123",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        }

    def test_status_of_a_version(self, target: Any) -> None:
        assert target.rest(f"{HALF}/versions/123").body["model_version_status"][0]["state"] == "AVAILABLE"
        assert target.rest(f"{HALF}/versions/9").status == 404
        assert target.rest("/v1/models/m").error == "Could not find any versions of model m"

    def test_metadata(self, target: Any) -> None:
        found = target.rest(f"{HALF}/metadata").body
        assert found["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "123"}
        signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
        assert signature["inputs"]["x"]["tensor_shape"]["dim"][0] == {"size": "-1", "name": ""}
        assert signature["method_name"] == "tensorflow/serving/predict"

    def test_malformed(self, target: Any) -> None:
        assert target.rest("/v1/models").error == "Missing model name in request."
        answer = target.rest(f"{HALF}/other")
        assert answer.status == 400
        assert "Malformed request: GET" in answer.error
