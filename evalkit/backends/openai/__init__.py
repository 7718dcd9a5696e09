"""Models behind an OpenAI-compatible server: `/v1/completions` of vLLM, SGLang, llama.cpp and others.

`endpoint` says where the server is, `retry` and `client` ask it until it answers, `wire` reads what it says, `probe`
finds out once what it can do, `choices` and `texts` ask the two kinds of question, `backend` puts them together.
"""
